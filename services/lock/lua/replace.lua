-- Ends the grant that has the lock and grants to another request, in one step: the lock is never
-- free in between, and its queue stays as it is. Safe to repeat: the same token gets the same
-- grant.
-- KEYS[4] -> the shard's highest fence and its epoch, KEYS[5] -> its forgot
-- ARGV[1] -> the new grant's text without fence and since
-- ARGV[2] -> ttl (milliseconds)
-- ARGV[3] -> when its sender has given up, as in acquire
-- ARGV[4] -> an epoch, if the shard has none
-- ARGV[5] -> the id of the grant to end; any other one stays
-- ARGV[6] -> only if that was neither granted nor extended for so long (milliseconds)
-- ARGV[7] -> the name of the event that tells of its end
-- returns the reply, with the last sign of life of who has the lock; code 1: replaced, 2: this token
--   had it already, 0: not replaced, 3: too late
if string.format('%013d', now) > ARGV[3] then
  return reply(3, nil, 0)
end
local lock, waiting = current(), redis.call('ZCARD', KEYS[2])
if lock and string.sub(lock.credential, 33) == string.sub(ARGV[1], 33, 75) then
  contend(lock)
  return standing(2, lock, waiting)
end
-- One that is to be confirmed is its waiter's: it would queue anew, for a grant that is over.
if not lock or lock.flag == '?' or id_of(lock.grant) ~= ARGV[5] then
  return standing(0, lock, waiting)
end
local active = math.max(tonumber(string.sub(lock.grant, 17, 29)), tonumber(redis.call('GET', extended(ARGV[5])) or '0'))
if now - active < tonumber(ARGV[6]) then
  return standing(0, lock, waiting)
end
begin(ARGV[4], true)
redis.call('INCR', prefix .. 'forced') -- see force
redis.call('SET', tombstone(ARGV[5]), '1', 'PX', LONGEST)
event(ARGV[7], lock.grant) -- before the one about its successor
local successor = grant(ARGV[1], tonumber(ARGV[2]), 1)
redis.call('DEL', metadata(ARGV[5]), extended(ARGV[5]))
redis.call('ZREM', KEYS[3], lock.grant)
redis.pcall('PUBLISH', ENDS, lock.grant)
return standing(1, successor, waiting)
