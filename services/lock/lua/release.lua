-- Gives the lock back, or leaves its queue, and grants to the next waiter.
-- ARGV[1] -> grant id and hash of token
-- ARGV[2] -> none if the releasing instance made the grant. Else:
--   'shared': other instances may know of the grant
--   'tombstone': one of them may have made or extended it without Redis, and would reassert it
--   'abandon': an attempt gives up, and its caller may not have been answered. Another attempt with
--     its token keeps it
--   'leave': only leaves the queue. The grant was made without Redis and is over, but another
--     instance may have it
-- returns the reply, with "instance id" of the waiter it was granted to; code 1: released, 0: not
--   held by this grant
local lock = current()
local id = string.sub(ARGV[1], 1, 32)
if ARGV[2] == 'leave' then
  leave(id)
  return reply(0, lock, 0)
end
if ARGV[2] == 'tombstone' then
  redis.call('SET', tombstone(id), '1', 'PX', LONGEST)
end
if lock and lock.credential == ARGV[1] then
  if ARGV[2] == 'abandon' and redis.call('EXISTS', shared(id)) == 1 then
    return reply(0, lock, 0)
  end
  return reply(1, nil, 0, free(lock, 'released'))
end
leave(id)
expire(-1, id) -- or it expires later, and is reasserted
if string.sub(redis.call('GET', expired(id)) or '', 1, 43) == string.sub(ARGV[1], 33) then
  redis.call('SETRANGE', expired(id), 0, string.rep('-', 43)) -- it shall not be reasserted
end
return reply(0, current(), 0)
