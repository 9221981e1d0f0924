-- Gives a lock back that only one instance knows and that has no waiters: the most frequent case of
-- release.
-- returns 1
local grant = redis.call('GET', KEYS[1])
if grant and not ARGV[2] and string.sub(grant, 30, 104) == ARGV[1] then
  redis.call('DEL', KEYS[1], string.sub(KEYS[3], 1, -6) .. 'extended:' .. string.sub(ARGV[1], 1, 32))
  redis.call('ZREM', KEYS[3], grant)
  redis.pcall('PUBLISH', EVENTS, 'released\n' .. grant)
  return 1
end
