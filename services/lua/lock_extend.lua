-- Makes the time left ttl from now, but not past the longest hold.
-- ARGV[4] -> token hash
-- ARGV[5] -> grant id
-- ARGV[6] -> ttl (milliseconds)
-- ARGV[7] -> longest hold since the grant (milliseconds)
-- ARGV[8] -> how many more fences to reserve, 0 for none
-- returns the reply, with the first fence reserved; code 1: extended, 0: not held by this grant
local lock = current()
local epoch = redis.call('HGET', KEYS[5], 'epoch')
if not lock or lock.token ~= ARGV[4] or lock.grant ~= ARGV[5] then
  return reply(0, lock, epoch, 0)
end
local ttl = math.min(tonumber(ARGV[6]), tonumber(lock.since) + tonumber(ARGV[7]) - now)
if ttl <= 0 then
  free(lock, 'expired')
  return reply(0, current(), epoch, 0)
end
redis.call('HSET', KEYS[1], 'pending', '0', 'until', int(now + ttl))
lease(lock, ttl)
local first = ''
if tonumber(ARGV[8]) > 0 then
  first = math.max(tonumber(redis.call('HGET', KEYS[5], 'fence')) + 1, micros)
  redis.call('HSET', KEYS[5], 'fence', int(first + tonumber(ARGV[8]) - 1))
  first = int(first)
end
event('extended', lock)
return reply(1, lock, epoch, redis.call('ZCARD', KEYS[2]), first)
