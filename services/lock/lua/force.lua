-- Ends the lock, whoever its holder is, and grants to the next waiter.
-- ARGV[1] -> only if the fence is this one; '' forces any
-- ARGV[2] -> only if the grant is this one; '' forces any
-- returns the reply with the lock that was and "instance id" of the next holder; code 1: forced, 0:
--   free, 2: another grant
if ARGV[2] ~= '' then
  redis.call('SET', tombstone(ARGV[2]), '1', 'PX', LONGEST) -- an instance may have it without Redis, and reassert it
  leave(ARGV[2]) -- it may have waited before it was granted without Redis
end
local lock = current()
if not lock then
  return reply(0, nil, 0)
end
if (ARGV[1] ~= '' and tonumber(string.sub(lock.grant, 1, 16)) ~= tonumber(ARGV[1])) or (ARGV[2] ~= '' and id_of(lock.grant) ~= ARGV[2]) then
  return reply(2, lock, 0)
end
-- Heartbeats answer this count: a holder's instance that missed the event verifies its leases.
redis.call('INCR', prefix .. 'forced')
redis.call('SET', tombstone(id_of(lock.grant)), '1', 'PX', LONGEST)
local was = reply(1, lock, 0)
was[6] = free(lock, 'forced')
return was
