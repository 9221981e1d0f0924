-- What the lock scripts share; put before each of them.
-- KEYS[1] -> the lock: hash of token (hash), grant, fence, since, until, holder (JSON), pending, note
-- KEYS[2] -> its queue: sorted set, grant id -> arrival (microseconds)
-- KEYS[3] -> its waiters: hash, grant id -> request (JSON of token, ttl, block, holder, instance)
-- KEYS[4] -> the shard's index: sorted set, resource -> end of its lease (milliseconds)
-- KEYS[5] -> the shard: hash of epoch, fence (highest so far), forced (how many locks were)
-- KEYS[6] -> the shard's instances: sorted set, instance -> its last beat (milliseconds)
-- ARGV[1] -> the resource
-- ARGV[2] -> how long an instance counts as alive without a beat, and an unconfirmed grant lasts (milliseconds)
-- ARGV[3] -> what channels start with: events are published on it .. 'locks', grants on it .. 'grants:' .. instance
local clock = redis.call('TIME')
local micros = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(micros / 1000)

-- Lua's own conversion loses digits past 14.
local function int(n)
  return string.format('%.0f', n)
end

local function current()
  local v = redis.call('HMGET', KEYS[1], 'token', 'grant', 'fence', 'since', 'until', 'holder', 'pending', 'note')
  if not v[1] or tonumber(v[5]) <= now then
    return nil
  end
  return {token = v[1], grant = v[2], fence = v[3], since = v[4], till = tonumber(v[5]), holder = v[6], pending = v[7], note = v[8]}
end

-- Every reply has this shape, so that one function reads them all.
local function reply(code, lock, epoch, waiting, extra)
  if not lock then
    return {code, '', '', '0', '0', '0', '', '', waiting, epoch or '', extra or '', int(now)}
  end
  return {code, lock.token, lock.grant, lock.fence, lock.since, int(lock.till - now), lock.holder, lock.note or '',
    waiting, epoch or '', extra or '', int(now)}
end

local function event(name, lock)
  redis.call('PUBLISH', ARGV[3] .. 'locks', table.concat({name, lock.grant, lock.fence, int(now), lock.holder, ARGV[1]}, '\n'))
end

-- Where a release is remembered whose grant was not there: beside the shard's key.
local function ended(id)
  return string.sub(KEYS[5], 1, -6) .. 'ended:' .. id
end

local function leave(id)
  if redis.call('ZREM', KEYS[2], id) == 1 then
    redis.call('HDEL', KEYS[3], id)
  end
end

local function lease(lock, ttl)
  lock.till = now + ttl
  -- The key outlives its lease a little, so that a beat can still tell whose it was.
  redis.call('PEXPIRE', KEYS[1], int(ttl + 10000))
  redis.call('ZADD', KEYS[4], int(lock.till), ARGV[1])
end

-- Grants a free lock. A block reserves so many fences for hand-over within the instance.
local function grant(id, token, holder, ttl, block, pending)
  local shard = redis.call('HMGET', KEYS[5], 'fence', 'epoch')
  local fence = math.max(tonumber(shard[1] or '0') + 1, micros)
  local epoch = shard[2] or id
  redis.call('HSET', KEYS[5], 'fence', int(fence + block - 1), 'epoch', epoch)
  local lock = {token = token, grant = id, fence = int(fence), since = int(now), holder = holder, pending = pending}
  redis.call('HSET', KEYS[1], 'token', token, 'grant', id, 'fence', lock.fence, 'since', lock.since, 'until', int(now + ttl),
    'holder', holder, 'pending', pending)
  lease(lock, ttl)
  event('acquired', lock)
  return lock, epoch
end

-- The first waiter whose instance is alive. One that only looked dead keeps its
-- place; one that is silent for 10 s is dropped.
local function head()
  local skipped = 0
  while true do
    local id = redis.call('ZRANGE', KEYS[2], skipped, skipped)[1]
    if not id then
      return nil
    end
    local request = redis.call('HGET', KEYS[3], id)
    if request then
      request = cjson.decode(request)
      local silent = now - tonumber(redis.call('ZSCORE', KEYS[6], request.instance) or '0')
      if silent <= tonumber(ARGV[2]) then
        return id, request
      end
      if silent > 10000 then
        leave(id)
      else
        skipped = skipped + 1
      end
    else
      redis.call('ZREM', KEYS[2], id)
    end
  end
end

-- Gives a free lock to the head of the queue, for a short lease that its next
-- word makes a whole one, and tells the head's instance. Returns "instance id".
local function advance()
  local id, request = head()
  if not id then
    return ''
  end
  grant(id, request.token, request.holder, math.min(tonumber(ARGV[2]), request.ttl), request.block, request.instance)
  leave(id)
  redis.call('PUBLISH', ARGV[3] .. 'grants:' .. request.instance, id)
  return request.instance .. ' ' .. id
end

-- Ends a lock and passes it on.
local function free(lock, name)
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  event(name, lock)
  return advance()
end
