-- Answers how the lock stands.
-- returns the reply; code 1: held, 0: free
local lock = current()
return reply(lock and 1 or 0, lock, redis.call('ZCARD', KEYS[2]))
