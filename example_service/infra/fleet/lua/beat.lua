-- Record a member's heartbeat. Because it writes, it fails if the store is read-only.
--
-- KEYS[1]  hash: epoch, counter
-- KEYS[2]  sorted set: members by the time of their last heartbeat, in milliseconds
-- ARGV[1]  the name of the member
-- ARGV[2]  the highest version that it knows
-- ARGV[3]  an epoch, used if the store has none
-- ARGV[4]  milliseconds after which a member without a heartbeat is removed
-- ARGV[5]  milliseconds for which the keys are kept
--
-- Returns  {clock in milliseconds, epoch, counter before it was raised, number of members}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[3])
local counter = redis.call('HGET', KEYS[1], 'counter') or '0'
if tonumber(counter) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'counter', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return {now, redis.call('HGET', KEYS[1], 'epoch'), counter, redis.call('ZCARD', KEYS[2])}
