-- Answers how the lock stands.
-- returns the reply, with when the holder extended it last; code 1: held, 0: free
local lock = current()
return standing(lock and 1 or 0, lock, redis.call('ZCARD', KEYS[2]))
