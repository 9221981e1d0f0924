-- Gives the lock back, or leaves its queue, and grants to the next waiter.
-- ARGV[3] -> token hash
-- ARGV[4] -> grant id
-- returns the reply; code 1: released, 0: not held by this grant
leave(ARGV[4])
local lock = current()
if not lock or lock.token ~= ARGV[3] or lock.grant ~= ARGV[4] then
  return reply(0, lock)
end
free()
return reply(1, lock)
