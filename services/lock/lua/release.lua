-- Gives the lock back, or leaves its queue, and grants to the next waiter.
-- ARGV[1] -> grant id and hash of token
-- ARGV[2] -> none if the releasing instance made the grant; else other instances may know of it. If one of them may have
--   made it without Redis, and would claim it: how long to remember the release (milliseconds); '' otherwise. 'attempt' if an
--   attempt gives up, that may or may not have had the grant answered: another one with its token keeps it. 'place' only
--   leaves the queue: the grant was made without Redis and is over, but another instance may have extended and claimed it
-- returns the reply, with "instance id" of the waiter it was granted to; code 1: released, 0: not held by this grant
local lock = current()
local id = string.sub(ARGV[1], 1, 32)
local attempt = ARGV[2] == 'attempt'
if ARGV[2] == 'place' then
  leave(id)
  return reply(0, lock, 0)
end
if not attempt and (ARGV[2] or '') ~= '' then
  redis.call('SET', ended(id), '1', 'PX', ARGV[2])
end
if lock and lock.proof == ARGV[1] then
  if attempt and redis.call('EXISTS', kept(id)) == 1 then
    return reply(0, lock, 0)
  end
  return reply(1, nil, 0, free(lock, 'released'))
end
leave(id)
lapse(-1, id) -- or it lapses later, and is claimed
if redis.call('GET', lapsed(id)) == string.sub(ARGV[1], 33) then
  redis.call('DEL', lapsed(id)) -- it shall not be claimed
end
return reply(0, current(), 0)
