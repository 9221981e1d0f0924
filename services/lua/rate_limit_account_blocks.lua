-- Puts back the blocks that one instance took, as far as Redis has lost them. Telling twice changes nothing.
--
-- KEYS[1] -> the blocks, KEYS[2] -> their units, as in rate_limit_lease.lua. KEYS[3] -> when the key was reset
-- ARGV[1] -> window in microseconds, ARGV[2] -> when the instance itself reset the key (0: it did not)
-- then for each block -> its id, its units, when it was taken and when it leaves, by the server's clock
--
-- Returns how many had been lost; the server's time; when the key was reset (0: it was not), in microseconds: what was
-- taken until then is not put back.

local blocks, sizes, window = KEYS[1], KEYS[2], tonumber(ARGV[1])
local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]

local reset, there = tonumber(ARGV[2]), tonumber(redis.call('GET', KEYS[3]) or 0)
if reset > there then
  redis.call('SET', KEYS[3], string.format('%.0f', reset), 'PX', math.max(1, math.ceil((reset + window - time) / 1000)))
else
  reset = there
end

local now = math.max(time, tonumber(redis.call('HGET', sizes, 'now') or 0))
local lost = 0
for a = 3, #ARGV, 4 do
  local id, units, leaves = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 3])
  if leaves > now and tonumber(ARGV[a + 2]) > reset and redis.call('HSETNX', sizes, id, units) == 1 then
    redis.call('HINCRBY', sizes, 'used', units)
    redis.call('ZADD', blocks, leaves, id)
    lost = lost + 1
  end
end
if lost > 0 then
  redis.call('HSET', sizes, 'now', now)
  local last = tonumber(redis.call('ZRANGE', blocks, -1, -1, 'WITHSCORES')[2])
  redis.call('PEXPIRE', blocks, math.max(1, math.ceil((last - now) / 1000)))
  redis.call('PEXPIRE', sizes, math.max(1, math.ceil((last - now) / 1000)))
end
return {lost, time, reset}
