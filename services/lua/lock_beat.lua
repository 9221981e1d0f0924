-- An instance's word about one shard: it is alive, what has ended is passed on,
-- and it hears of the shard's epoch. Grants made meanwhile are published.
-- KEYS[1] -> any lock of the shard (only for the hash tag)
-- KEYS[4], KEYS[5], KEYS[6] -> the shard's index, the shard, its instances
-- ARGV[1] -> '' (set to each resource in turn), ARGV[2], ARGV[3] as in all lock scripts
-- ARGV[4] -> the instance
-- ARGV[5] -> '1' if it has waiters here
-- ARGV[6] -> what the shard's keys start with
-- ARGV[7] ... -> resources that it waits for
-- returns the epoch, how many locks were forced, the time (milliseconds), then the grant id of each waiter of this
--   instance that is to confirm
if ARGV[5] == '1' then
  redis.call('ZADD', KEYS[6], int(now), ARGV[4])
  redis.call('PEXPIRE', KEYS[6], 60000)
end
local function resource(name)
  ARGV[1] = name
  KEYS[1] = ARGV[6] .. 'lock:' .. name
  KEYS[2] = ARGV[6] .. 'queue:' .. name
  KEYS[3] = ARGV[6] .. 'waiters:' .. name
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', int(now), 'LIMIT', 0, 100)) do
  resource(name)
  if not current() then
    redis.call('ZREM', KEYS[4], name)
    local last = redis.call('HMGET', KEYS[1], 'fence', 'holder', 'grant')
    event('expired', {fence = last[1] or '0', holder = last[2] or '{}', grant = last[3] or ''})
    redis.call('DEL', KEYS[1])
    advance()
  end
end
local shard = redis.call('HMGET', KEYS[5], 'epoch', 'forced')
local answer = {shard[1] or '', shard[2] or '0', int(now)}
for i = 7, #ARGV do
  resource(ARGV[i])
  local lock = current()
  if not lock then
    advance()
    lock = current()
  end
  if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('PEXPIRE', KEYS[2], 60000)
    redis.call('PEXPIRE', KEYS[3], 60000)
  end
  if lock and lock.pending == ARGV[4] then
    table.insert(answer, lock.grant)
  end
end
return answer
