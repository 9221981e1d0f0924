-- Makes the time left ttl from now, but not past the longest hold.
-- ARGV[1] -> grant id and hash of token
-- ARGV[2] -> ttl (milliseconds)
-- ARGV[3] -> longest hold since the grant (milliseconds)
-- ARGV[4] -> how many more fences to reserve, 0 for none
-- ARGV[5] -> '1' if the extending instance did not make the grant: it knows of it from now on
-- ARGV[6] -> '1' to give the lock back instead if there is a waiter for it
-- returns the reply, with the first fence reserved or "instance id" of the waiter it was granted to; code 1: extended,
--   2: given back, 0: not held by this grant
local lock = current()
if not lock or lock.proof ~= ARGV[1] then
  return reply(0, lock, 0)
end
if ARGV[6] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then
  return reply(2, nil, 0, free(lock, 'released'))
end
local ttl = math.min(tonumber(ARGV[2]), tonumber(string.sub(lock.grant, 17, 29)) + tonumber(ARGV[3]) - now)
if ttl <= 0 then
  free(lock, 'expired')
  return reply(0, current(), 0)
end
if ARGV[5] == '1' then
  mark(lock)
end
lease(lock, ttl)
local first = ''
if tonumber(ARGV[4]) > 0 then
  local from = math.max(tonumber(string.sub(redis.call('GET', highest) or '0', 1, 16)) + 1, micros)
  redis.call('SETRANGE', highest, 0, string.format('%016d', from + ARGV[4] - 1))
  first = string.format('%d', from)
end
event('extended', lock.grant)
return reply(1, lock, redis.call('ZCARD', KEYS[2]), first)
