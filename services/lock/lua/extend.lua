-- Makes the time left ttl from now, but not past the longest hold.
-- ARGV[1] -> grant id and hash of token
-- ARGV[2] -> ttl (milliseconds)
-- ARGV[3] -> '' if the extending instance made the grant, 'share' if it did not: it knows of the
--   grant from now on; 'renew' to give the lock back instead if there is a waiter for it, and to
--   reserve more fences if there is none
-- ARGV[4] -> for 'renew': how many
-- returns the reply, with the first fence reserved or "instance id" of the waiter it was granted
--   to; code 1: extended, 2: given back, 0: not held by this grant
local lock = current()
if not lock or lock.credential ~= ARGV[1] then
  return reply(0, lock, 0)
end
if ARGV[3] == 'renew' and redis.call('EXISTS', KEYS[2]) == 1 then
  return reply(2, nil, 0, free(lock, 'released'))
end
local ttl = math.min(tonumber(ARGV[2]), tonumber(string.sub(lock.grant, 17, 29)) + LONGEST - now)
if ttl <= 0 then
  free(lock, 'expired')
  return reply(0, current(), 0)
end
if ARGV[3] == 'share' then
  contend(lock)
end
lease(lock, ttl)
touch(id_of(lock.grant), ttl)
local first = ARGV[3] == 'renew' and string.format('%d', reserve(tonumber(ARGV[4]))) or ''
event('extended', lock.grant)
return reply(1, lock, redis.call('ZCARD', KEYS[2]), first)
