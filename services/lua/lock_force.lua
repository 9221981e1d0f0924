-- Ends the lock whoever holds it and grants to the next waiter.
-- ARGV[4] -> only if the fence is this one; '' forces any
-- ARGV[5] -> only if the grant is this one; '' forces any
-- returns the reply with the lock that was and "instance id" of the next holder; code 1: forced, 0: free, 2: another grant
local lock = current()
if not lock then
  return reply(0, nil, '', 0)
end
if (ARGV[4] ~= '' and lock.fence ~= ARGV[4]) or (ARGV[5] ~= '' and lock.grant ~= ARGV[5]) then
  return reply(2, lock, '', 0)
end
-- Beats answer this count: a holder that did not hear the event looks after its lock.
redis.call('HINCRBY', KEYS[5], 'forced', 1)
return reply(1, lock, '', 0, free(lock, 'forced'))
