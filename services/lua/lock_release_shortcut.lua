-- Gives a lock back for which nobody waits: lock_release.lua for the most frequent case.
-- returns 1
local lock = redis.call('GET', KEYS[1])
if lock and string.sub(lock, 31, 105) == ARGV[1] and string.sub(lock, 1, 1) == '+' and redis.call('EXISTS', KEYS[2]) == 0 then
  local grant = string.sub(lock, 2)
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[3], grant)
  redis.call('PUBLISH', ARGV[2], 'released\n' .. grant)
  return 1
end
