-- Takes the lock, or a place in its queue, or tells who has it. Safe to repeat:
-- the same token gets the same grant.
-- ARGV[4] -> token hash
-- ARGV[5] -> grant id, also the waiter's name in the queue
-- ARGV[6] -> ttl (milliseconds)
-- ARGV[7] -> holder (JSON)
-- ARGV[8] -> how many fences to reserve
-- ARGV[9] -> the instance, to queue when the lock is taken; '' does not queue
-- ARGV[10] -> arrival as answered before, '' at the first time
-- ARGV[11] -> of a claim: take a free lock only if the shard's epoch is not this one; '' takes it anyway
-- ARGV[12] -> when its sender has given up (server's milliseconds), '' if that is not known: an acquire that comes out of
--   a frozen server or network later than that must not lock for nobody
-- ARGV[13] -> '1' for a claim: a grant made without Redis, or forgotten by it, unless it was given back elsewhere
-- returns the reply, with the arrival; code 1: granted, 2: this token had it already, 0: not acquired, 3: too late
if ARGV[12] ~= '' and now > tonumber(ARGV[12]) then
  return reply(3, nil, nil, 0)
end
local lock = current()
if lock and lock.token == ARGV[4] then
  local code = 2
  if lock.pending ~= '0' then
    redis.call('HSET', KEYS[1], 'pending', '0', 'until', int(now + tonumber(ARGV[6])))
    lease(lock, tonumber(ARGV[6]))
    code = 1
  end
  leave(ARGV[5])
  return reply(code, lock, redis.call('HGET', KEYS[5], 'epoch'), 0)
end
if ARGV[13] == '1' and redis.call('EXISTS', ended(ARGV[5])) == 1 then
  return reply(0, lock, redis.call('HGET', KEYS[5], 'epoch'), 0)
end
if ARGV[11] ~= '' and redis.call('HGET', KEYS[5], 'epoch') == ARGV[11] then
  return reply(0, lock, ARGV[11], 0)
end
if not lock then
  local first = redis.call('EXISTS', KEYS[2]) == 1 and head()
  if not first or first == ARGV[5] then
    local granted, epoch = grant(ARGV[5], ARGV[4], ARGV[7], tonumber(ARGV[6]), tonumber(ARGV[8]), '0')
    if first then
      leave(ARGV[5])
    end
    return reply(1, granted, epoch, 0)
  end
  advance()
end
local arrival = ARGV[10]
if ARGV[9] ~= '' then
  if arrival == '' then
    local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
    arrival = int(math.max(micros, tonumber(last or '0') + 1))
  end
  redis.call('ZADD', KEYS[2], 'NX', arrival, ARGV[5])
  redis.call('HSET', KEYS[3], ARGV[5], cjson.encode({token = ARGV[4], ttl = tonumber(ARGV[6]), block = tonumber(ARGV[8]),
    holder = ARGV[7], instance = ARGV[9]}))
  redis.call('ZADD', KEYS[6], int(now), ARGV[9])
  redis.call('PEXPIRE', KEYS[2], 60000)
  redis.call('PEXPIRE', KEYS[3], 60000)
  redis.call('PEXPIRE', KEYS[6], 60000)
end
return reply(0, current(), redis.call('HGET', KEYS[5], 'epoch'), redis.call('ZCARD', KEYS[2]), arrival)
