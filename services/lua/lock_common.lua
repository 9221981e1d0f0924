-- What the lock scripts share; put before each of them.
-- KEYS[1] -> the lock: hash of token (hash), grant, fence, since, until, user, email, reason, pending, note
-- KEYS[2] -> its queue: sorted set, grant id -> arrival (microseconds)
-- KEYS[3] -> its waiters: hash, r:<grant id> -> request (JSON), s:<grant id> -> last seen (milliseconds)
-- KEYS[4] -> the shard's index: sorted set, resource -> end of its lease (milliseconds)
-- KEYS[5] -> the shard: hash of epoch, fence (highest so far)
-- ARGV[1] -> the resource
-- ARGV[2] -> how long a waiter counts as alive without a word, and an unconfirmed grant lasts (milliseconds)
local clock = redis.call('TIME')
local micros = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(micros / 1000)

-- Lua's own conversion loses digits past 14.
local function int(n)
  return string.format('%.0f', n)
end

local function current()
  local v = redis.call('HMGET', KEYS[1], 'token', 'grant', 'fence', 'since', 'until', 'user', 'email', 'reason', 'pending', 'note')
  if not v[1] or tonumber(v[5]) <= now then
    return nil
  end
  return {token = v[1], grant = v[2], fence = v[3], since = v[4], till = tonumber(v[5]), user = v[6],
    email = v[7], reason = v[8], pending = v[9], note = v[10]}
end

-- Every reply has this shape, so that one function reads them all.
local function reply(code, lock, arrival)
  local epoch = redis.call('HGET', KEYS[5], 'epoch') or ''
  local waiting = redis.call('ZCARD', KEYS[2])
  if not lock then
    return {code, '', '', '0', '0', '0', '', '', '', '', waiting, epoch, arrival or ''}
  end
  return {code, lock.token, lock.grant, lock.fence, lock.since, int(lock.till - now), lock.user,
    lock.email, lock.reason, lock.note or '', waiting, epoch, arrival or ''}
end

local function leave(id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], 'r:' .. id, 's:' .. id)
end

local function lease(ttl)
  redis.call('HSET', KEYS[1], 'until', int(now + ttl))
  redis.call('PEXPIRE', KEYS[1], int(ttl))
  redis.call('ZADD', KEYS[4], int(now + ttl), ARGV[1])
end

local function grant(id, request, ttl, pending)
  local fence = tonumber(redis.call('HGET', KEYS[5], 'fence') or '0') + 1
  if micros > fence then
    fence = micros
  end
  redis.call('HSET', KEYS[5], 'fence', int(fence))
  redis.call('HSETNX', KEYS[5], 'epoch', id)
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'token', request.token, 'grant', id, 'fence', int(fence), 'since', int(now),
    'user', request.user, 'email', request.email, 'reason', request.reason, 'pending', pending)
  lease(ttl)
  leave(id)
end

-- The first waiter that is alive; the dead before it are dropped. One that was
-- only slow comes back with its old arrival and so keeps its place.
local function head()
  while true do
    local id = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
    if not id then
      return nil
    end
    local seen = tonumber(redis.call('HGET', KEYS[3], 's:' .. id) or '0')
    if now - seen <= tonumber(ARGV[2]) then
      return id
    end
    leave(id)
  end
end

-- Gives a free lock to the head of the queue, for a short lease that its next
-- word makes a whole one.
local function advance()
  local id = head()
  if id then
    local request = cjson.decode(redis.call('HGET', KEYS[3], 'r:' .. id))
    grant(id, request, math.min(tonumber(ARGV[2]), request.ttl), '1')
  end
end

local function free()
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  advance()
end
