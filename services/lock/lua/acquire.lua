-- Takes the lock, or a place in its queue, or answers who has it. Safe to repeat: the same token
-- gets the same grant.
-- KEYS[4] -> the shard's highest fence and its epoch, KEYS[5] -> its forgot
-- ARGV[1] -> the grant's text without fence and since
-- ARGV[2] -> ttl (milliseconds)
-- ARGV[3] -> when its sender has given up (server's milliseconds, 13 digits), '9' if that is not
--   known: an acquire that leaves a frozen server or network later than that must not take a lock
--   that is not used
-- ARGV[4] -> how many fences to reserve
-- ARGV[5] -> an epoch, if the shard has none
-- ARGV[6] -> 'known' if the instance has observed an epoch of the shard; 'free' if it also knows
--   that no living grant could be reasserted; else ''
-- ARGV[7] -> the instance, to queue when the lock is taken; none or '' does not queue
-- ARGV[8] -> arrival as answered before, none or '' at the first time
-- ARGV[9] -> to reassert a grant that Redis never knew, or has forgotten: its origin, 'local' if
--   the instance made it and knows the holder; none or '' otherwise
-- ARGV[10] -> of a grant to reassert: the epoch in which Redis knew of it. While the shard is in
--   that epoch, the grant takes a free lock only if its lease ended by itself, not if it was given
--   back or forced. 'unknown' counts as the same epoch. '' if Redis never knew of the grant
-- ARGV[11] -> of a grant to reassert: how long it has been held (milliseconds)
-- returns the reply, with the arrival; code 1: granted, 2: this token had it already, 0: not
--   acquired, 3: too late
if string.format('%013d', now) > ARGV[3] then
  return reply(3, nil, 0)
end
local id = string.sub(ARGV[1], 1, 32)
local ttl = tonumber(ARGV[2])
local lock = current()
if lock and string.sub(lock.credential, 33) == string.sub(ARGV[1], 33, 75) then
  local code = 2
  if lock.flag == '?' then
    lease(lock, ttl)
    code = 1
  end
  if ARGV[9] == 'local' and id_of(lock.grant) == id then
    correct(lock, ARGV[1])
  end
  contend(lock)
  leave(id)
  if id_of(lock.grant) ~= id and (ARGV[9] or '') == '' then
    redis.call('SET', shared(id_of(lock.grant)), '1', 'PX', LONGEST)
  end
  return reply(code, lock, 0)
end
local reasserts = (ARGV[9] or '') ~= ''
if reasserts then
  expire(-1, id) -- or it is not known to have expired
  lock = current()
  local by_itself = string.sub(redis.call('GET', expired(id)) or '', 1, 43) == string.sub(ARGV[1], 33, 75)
  if redis.call('EXISTS', tombstone(id)) == 1 or (not by_itself and (ARGV[10] == 'unknown' or ARGV[10] ~= '' and ARGV[10] == epoch())) then
    leave(id) -- it may have waited before it was granted without Redis
    return reply(0, lock, 0)
  end
end
begin(ARGV[5], ARGV[6] ~= '' or (ARGV[10] or '') ~= '')
local instance, arrival = ARGV[7] or '', ARGV[8] or ''
if instance ~= '' then -- it asks, so it is alive: else it would be passed over in the queue
  alive(instance)
end
if not lock then
  local first = redis.call('EXISTS', KEYS[2]) == 1 and head()
  local grace = in_grace()
  if (grace and reasserts) or ((not grace or ARGV[6] == 'free') and (not first or first == id)) then
    leave(id)
    if reasserts then -- when its holder extended it is forgotten: rather later than too early
      redis.call('DEL', expired(id))
      touch(id, ttl)
    end
    return reply(1, grant(ARGV[1], ttl, tonumber(ARGV[4]), nil, tonumber(ARGV[11])), 0)
  end
  if not grace then
    advance()
    lock = current()
  end
end
if reasserts then
  leave(id)
end
if instance ~= '' then
  if arrival == '' then
    local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
    arrival = string.format('%d', math.max(micros, tonumber(last or '0') + 1))
  end
  redis.call('ZADD', KEYS[2], 'NX', arrival, id)
  redis.call('HSET', waiters(), id, cjson.encode({grant = ARGV[1], ttl = ttl, block = tonumber(ARGV[4]), instance = instance}))
  if lock then
    contend(lock)
  end
  redis.call('PEXPIRE', KEYS[2], 60000)
  redis.call('PEXPIRE', waiters(), 60000)
end
return reply(0, lock, redis.call('ZCARD', KEYS[2]), arrival)
