-- Makes the time left ttl from now, but not past the longest hold.
-- ARGV[3] -> token hash
-- ARGV[4] -> grant id
-- ARGV[5] -> ttl (milliseconds)
-- ARGV[6] -> longest hold since the grant (milliseconds)
-- returns the reply; code 1: extended, 0: not held by this grant
local lock = current()
if not lock or lock.token ~= ARGV[3] or lock.grant ~= ARGV[4] then
  return reply(0, lock)
end
local ttl = math.min(tonumber(ARGV[5]), tonumber(lock.since) + tonumber(ARGV[6]) - now)
if ttl <= 0 then
  free()
  return reply(0, current())
end
redis.call('HSET', KEYS[1], 'pending', '0')
lease(ttl)
return reply(1, current())
