-- What the lock scripts share. It stands before each of them, and behind the shortcuts of acquire
-- and release.
-- KEYS[1] -> the lock: its grant, with one character before it. '+': it is contended, as a waiter
--   or another instance may know of it. '*': contended, and it has metadata. '?' and the instance
--   (26): that one's waiter is to confirm it.
--   The key ends with the lease
-- KEYS[2] -> its queue: sorted set, grant id -> arrival (microseconds)
-- KEYS[3] -> the shard's index: sorted set, grant -> end of its lease (milliseconds)
-- A grant is text: fence (16 digits), since (13, milliseconds), id (32), hash of token (43),
-- resource and holder.
-- Other keys begin with the prefix of the shard:
--   fence: the highest fence (16 digits) and the shard's epoch, a random text that never comes
--     again: a server that has lost it has lost the locks
--   forgot: there for a while after that
--   forced: how many locks were forced
--   waiters:<resource>: hash, grant id -> request (JSON)
--   instances: sorted set, instance -> its last heartbeat (milliseconds)
--   metadata:<grant id>: its holder's metadata, as long as the lock
--   extended:<grant id>: when it was extended last (milliseconds), as long as the lock
--   expired:<grant id>: its lease ended by itself. The value is the hash of the token, with which
--     it can be reasserted, and when it ended (13 digits, milliseconds)
-- As long as an instance could still reassert the grant:
--   tombstone:<grant id>: it was given back, forced or replaced, and cannot be reasserted
--   shared:<grant id>: a second attempt with its token has it
-- Constants put in by scripts.go: EVENTS and ENDS, channels; and in milliseconds:
--   ALIVE: how long an instance counts as alive after a heartbeat, and how long after it an
--     unconfirmed grant ends
--   CONFIRM: how long such a grant lasts at least
--   LONGEST: how long a grant can be held
--   GRACE: how long holders have to reassert what the server forgot
--   REMEMBER: for how long at least it is known that a lease ended by itself
local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)
local prefix = string.sub(KEYS[3], 1, -6) -- 'locks'
local highest = prefix .. 'fence'
local forgot = prefix .. 'forgot'

local function id_of(grant)
  return string.sub(grant, 30, 61)
end

local function resource_of(grant)
  local length, rest = string.match(string.sub(grant, 105), '^(%d+):(.*)$')
  return string.sub(rest, 1, tonumber(length))
end

local function metadata(id)
  return prefix .. 'metadata:' .. id
end

local function tombstone(id)
  return prefix .. 'tombstone:' .. id
end

local function expired(id)
  return prefix .. 'expired:' .. id
end

local function extended(id)
  return prefix .. 'extended:' .. id
end

local function shared(id)
  return prefix .. 'shared:' .. id
end

local function waiters()
  return prefix .. 'waiters:' .. string.sub(KEYS[2], #prefix + 7) -- 'queue:'
end

local function current()
  local text = redis.call('GET', KEYS[1])
  if not text then
    return nil
  end
  local lock = {flag = string.sub(text, 1, 1)}
  if lock.flag == '?' then
    lock.pending = string.sub(text, 2, 27)
    lock.grant = string.sub(text, 28)
  elseif lock.flag == '+' or lock.flag == '*' then
    lock.grant = string.sub(text, 2)
  else
    lock.flag = ''
    lock.grant = text
  end
  lock.credential = string.sub(lock.grant, 30, 104) -- id and hash of token
  return lock
end

local function epoch()
  return string.sub(redis.call('GET', highest) or '', 17)
end

-- Begins an epoch where the shard has none. It must be new at every call: never one that was tried
-- before. after: the shard had one before, so that for a while its free locks are only for holders
-- who reassert them.
local function begin(new, after)
  if epoch() == '' then
    redis.call('SET', highest, string.format('%016d', redis.call('GET', highest) or 0) .. new)
    if after then
      redis.call('SET', forgot, '1', 'PX', GRACE)
    end
  end
end

local function in_grace()
  return redis.call('EXISTS', forgot) == 1
end

-- Every reply has this shape, so that one function reads them all.
local function reply(code, lock, waiting, extra)
  local left = 0
  local text = ''
  if not lock then
    left = math.max(0, redis.call('PTTL', forgot)) -- a free lock can be had after that
  else
    left = lock.left or redis.call('PTTL', KEYS[1])
    text = lock.flag == '*' and redis.call('GET', metadata(id_of(lock.grant))) or ''
  end
  return {code, lock and lock.grant or '', left, waiting, epoch(), extra or '', text, now}
end

-- A message is a hint. A user that may not publish must not end a script half way: hence pcall. For
-- the same reason the lock, which makes a grant count, is written after all else that could be
-- refused.
local function event(name, grant)
  redis.pcall('PUBLISH', EVENTS, name .. '\n' .. grant)
end

local function leave(id)
  if redis.call('ZREM', KEYS[2], id) == 1 then
    redis.call('HDEL', waiters(), id)
  end
end

local function alive(instance)
  redis.call('ZADD', prefix .. 'instances', now, instance)
  redis.call('PEXPIRE', prefix .. 'instances', 60000)
end

-- Lets the release of a lock look for waiters, and for other instances that know of the grant.
local function contend(lock)
  if lock.flag == '' then
    lock.flag = '+'
    redis.call('SET', KEYS[1], '+' .. lock.grant, 'KEEPTTL')
  end
end

-- Makes the time left ttl and the lock confirmed.
local function lease(lock, ttl)
  if lock.flag == '?' then
    lock.flag = '+'
    redis.call('SET', KEYS[1], '+' .. lock.grant, 'PX', ttl)
  else
    redis.call('PEXPIRE', KEYS[1], ttl)
    if lock.flag == '*' then
      redis.call('PEXPIRE', metadata(id_of(lock.grant)), ttl)
    end
  end
  redis.call('ZADD', KEYS[3], now + ttl, lock.grant)
  lock.left = ttl
end

-- Notes a sign of life of the holder, other than that the lock was granted.
local function touch(id, ttl)
  redis.call('SET', extended(id), string.format('%013d', now), 'PX', ttl)
end

-- The reply about how a lock stands: with the sign of life at its end.
local function standing(code, lock, waiting, extra)
  local answer = reply(code, lock, waiting, extra)
  answer[9] = lock and redis.call('GET', extended(id_of(lock.grant))) or ''
  return answer
end

-- Makes the lock name the holder as request does: an instance that did not know the holder may have
-- reasserted it.
local function correct(lock, request)
  local right = string.sub(lock.grant, 1, 29) .. request
  if right ~= lock.grant then
    redis.call('SET', KEYS[1], lock.flag .. right, 'KEEPTTL')
    redis.call('ZADD', KEYS[3], redis.call('ZSCORE', KEYS[3], lock.grant) or now, right)
    redis.call('ZREM', KEYS[3], lock.grant)
    lock.grant = right
  end
end

-- The first of block new fences.
local function reserve(block)
  local shard = redis.call('GET', highest) or '0'
  local first = math.max(tonumber(string.sub(shard, 1, 16)) + 1, micros)
  redis.call('SET', highest, string.format('%016d', first + block - 1) .. string.sub(shard, 17))
  return first
end

-- Grants a free lock. request is the grant's text without fence and since. block is how many fences
-- are reserved for hand-over within the instance. pending names the instance that is to confirm,
-- nil if none. held is how long it was held before (milliseconds), so that its longest hold does
-- not begin anew; nil: not at all. The shard must have an epoch.
local function grant(request, ttl, block, pending, held)
  local fence = reserve(block)
  local lock = {flag = pending and '?' or '+', grant = string.format('%016d%013d', fence, now - (held or 0)) .. request, left = ttl}
  redis.call('ZADD', KEYS[3], now + ttl, lock.grant)
  redis.call('SET', KEYS[1], lock.flag .. (pending or '') .. lock.grant, 'PX', ttl)
  event('acquired', lock.grant)
  return lock
end

-- The first waiter whose instance is alive. One that only looked dead keeps its place; one that is
-- silent for 10 s is dropped.
local function head()
  local skipped = 0
  while true do
    local id = redis.call('ZRANGE', KEYS[2], skipped, skipped)[1]
    if not id then
      return nil
    end
    local request = redis.call('HGET', waiters(), id)
    if request then
      request = cjson.decode(request)
      local silent = now - tonumber(redis.call('ZSCORE', prefix .. 'instances', request.instance) or '0')
      if silent <= ALIVE then
        return id, request, silent
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

-- Gives a free lock to the head of the queue, and publishes that to the head's instance. The lease
-- is short until the waiter's next call makes it whole, and shorter the longer its instance is
-- silent: a dead one costs ALIVE from its last heartbeat. Returns "instance id". In a shard without
-- an epoch that is left to the heartbeats, which bring one.
local function advance()
  local id, request, silent = head()
  if not id or epoch() == '' then
    return ''
  end
  leave(id)
  local lock = grant(request.grant, math.min(math.max(ALIVE - silent, CONFIRM), request.ttl), request.block, request.instance)
  redis.pcall('PUBLISH', string.sub(EVENTS, 1, -6) .. 'grants:' .. request.instance, epoch() .. lock.grant)
  return request.instance .. ' ' .. id
end

-- Ends a lock and passes it on.
local function free(lock, name)
  redis.call('DEL', KEYS[1], metadata(id_of(lock.grant)), extended(id_of(lock.grant)))
  redis.call('ZREM', KEYS[3], lock.grant)
  event(name, lock.grant)
  redis.pcall('PUBLISH', ENDS, lock.grant)
  return advance()
end

local function look_at(resource)
  KEYS[1] = prefix .. 'lock:' .. resource
  KEYS[2] = prefix .. 'queue:' .. resource
end

-- Whether the index is right about a grant: a server that evicts keys may have taken its lock.
local function stands(grant)
  look_at(resource_of(grant))
  local lock = current()
  return lock and lock.grant == grant
end

-- The leases that expire found to have ended: when (13 digits, milliseconds) and the grant.
local over = {}

-- Passes on the locks of the shard whose lease has ended by itself: at most so many, -1 for all, or
-- of these only the grant of this id. They alone are in the index then: what ends a lock takes it
-- out. Another holder may have taken one already.
local function expire(most, id)
  local key, queue = KEYS[1], KEYS[2]
  -- A lock goes before its score when Redis was held up between the moment from which PX counts,
  -- the script's start, and TIME: by up to 100 ms that is allowed for. A longer pause there would
  -- leave the grant to be reasserted.
  local until_then = id and now + 100 or now
  for _, grant in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', until_then, 'LIMIT', 0, most)) do
    if not id or id == id_of(grant) then
      if not stands(grant) then
        local at = string.format('%013d', math.min(now, tonumber(redis.call('ZSCORE', KEYS[3], grant) or now)))
        redis.call('ZREM', KEYS[3], grant)
        redis.call('SET', expired(id_of(grant)), string.sub(grant, 62, 104) .. at, 'PX', math.max(REMEMBER, tonumber(string.sub(grant, 17, 29)) + LONGEST - now))
        table.insert(over, at .. grant)
        event('expired', grant)
        if not current() then
          advance()
        end
      end
    end
  end
  KEYS[1], KEYS[2] = key, queue
end
