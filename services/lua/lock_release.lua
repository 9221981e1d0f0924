-- Gives the lock back, or leaves its queue, and grants to the next waiter.
-- ARGV[4] -> token hash
-- ARGV[5] -> grant id
-- ARGV[6] -> the release was owed: how long to remember it (milliseconds) if the grant is not there, since another
--   instance may know of it and claim it; '' otherwise
-- returns the reply, with "instance id" of the waiter it was granted to; code 1: released, 0: not held by this grant
local lock = current()
if not lock or lock.token ~= ARGV[4] or lock.grant ~= ARGV[5] then
  leave(ARGV[5])
  if ARGV[6] ~= '' then
    redis.call('SET', ended(ARGV[5]), '1', 'PX', ARGV[6])
  end
  return reply(0, lock, redis.call('HGET', KEYS[5], 'epoch'), 0)
end
return reply(1, lock, '', 0, free(lock, 'released'))
