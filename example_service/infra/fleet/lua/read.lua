-- Read all records.
--
-- KEYS[1]  hash: epoch, counter
-- KEYS[2]  sorted set: the names of the records by the time they expire, in milliseconds
-- ARGV[1]  the prefix of the keys of records
--
-- Returns  {clock in milliseconds, epoch, counter, a line with name, version and record for each}
--
-- The records are returned as one string, because parsing thousands of replies takes a client a
-- second.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'epoch', 'counter')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local records = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local record = redis.call('GET', ARGV[1] .. name)
  if record then
    records[#records + 1] = name .. ' ' .. record
  end
end
return {now, state[1] or '', state[2] or '0', table.concat(records, '\n')}
