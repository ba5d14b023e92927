-- Write one record if its version is the expected one, and publish it.
--
-- KEYS[1]  hash: epoch, counter
-- KEYS[2]  sorted set: the names of the records by the time they expire, in milliseconds
-- KEYS[3]  string: the version, a space, and the record
-- ARGV[1]  the name of the record in the sorted set
-- ARGV[2]  the version that the stored record must have; 0 for no record
-- ARGV[3]  the new record
-- ARGV[4]  milliseconds for which the record is kept
-- ARGV[5]  the highest version that the member knows
-- ARGV[6]  the channel
-- ARGV[7]  milliseconds for which the state and the sorted set are kept
--
-- Returns  {clock in milliseconds, 1 if it was written or 0, current version and record}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local current = redis.call('GET', KEYS[3]) or ''
local version = string.match(current, '^(%d+) ') or '0'
if version ~= ARGV[2] then
  if current ~= '' then
    -- The server may have evicted the sorted set, and kept the record.
    redis.call('ZADD', KEYS[2], now + redis.call('PTTL', KEYS[3]), ARGV[1])
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
  end
  return {now, 0, current}
end
local counter = tonumber(redis.call('HGET', KEYS[1], 'counter') or '0')
counter = math.max(counter, tonumber(ARGV[5])) + 1
local record = string.format('%.0f %s', counter, ARGV[3])
redis.call('HSET', KEYS[1], 'counter', string.format('%.0f', counter))
redis.call('SET', KEYS[3], record, 'PX', ARGV[4])
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('PUBLISH', ARGV[6], string.format('%.0f %s %s', now, ARGV[1], record))
return {now, 1, record}
