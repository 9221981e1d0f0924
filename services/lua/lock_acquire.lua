-- Takes the lock, or the place in its queue, or tells who has it. Safe to
-- repeat: the same token gets the same grant.
-- ARGV[3] -> token hash
-- ARGV[4] -> grant id, also the waiter's name in the queue
-- ARGV[5] -> the request: JSON of token, ttl (milliseconds), user, email, reason
-- ARGV[6] -> '1' to queue when the lock is taken
-- ARGV[7] -> arrival as answered before, '' at the first time
-- ARGV[8] -> claim: take a free lock only if the shard's epoch is not this one; '' takes it anyway
-- returns the reply; code 1: granted, 2: this token had it already, 0: not acquired
local request = cjson.decode(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', int(now))
local lock = current()
if lock and lock.token == ARGV[3] then
  local code = 2
  if lock.pending == '1' then
    redis.call('HSET', KEYS[1], 'pending', '0')
    lease(request.ttl)
    code = 1
  end
  leave(ARGV[4])
  return reply(code, current())
end
if ARGV[8] ~= '' and redis.call('HGET', KEYS[5], 'epoch') == ARGV[8] then
  return reply(0, lock)
end
if not lock then
  local first = head()
  if not first or first == ARGV[4] then
    grant(ARGV[4], request, request.ttl, '0')
    return reply(1, current())
  end
  advance()
end
local arrival = ARGV[7]
if ARGV[6] == '1' then
  if arrival == '' then
    local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
    arrival = int(math.max(micros, tonumber(last or '0') + 1))
  end
  redis.call('ZADD', KEYS[2], 'NX', arrival, ARGV[4])
  redis.call('HSET', KEYS[3], 'r:' .. ARGV[4], ARGV[5], 's:' .. ARGV[4], int(now))
  redis.call('PEXPIRE', KEYS[2], 10000)
  redis.call('PEXPIRE', KEYS[3], 10000)
end
return reply(0, current(), arrival)
