-- Ends the lock whoever holds it and grants to the next waiter.
-- ARGV[3] -> only if the fence is this one; '' forces any
-- returns the reply with the lock that was; code 1: forced, 0: free, 2: another fence
local lock = current()
if not lock then
  return reply(0, nil)
end
if ARGV[3] ~= '' and lock.fence ~= ARGV[3] then
  return reply(2, lock)
end
free()
return reply(1, lock)
