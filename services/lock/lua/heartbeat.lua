-- An instance's heartbeat in one shard: it is alive, what has expired is passed on, and it observes
-- the shard's epoch.
-- Grants made meanwhile are published.
-- KEYS[1], KEYS[2] -> set to each resource, one after the other
-- ARGV[1] -> the instance
-- ARGV[2] -> an epoch, if the shard has none although the instance has observed one before; else ''
-- ARGV[3] ... -> resources that it waits for
-- returns a list:
--   the shard's highest fence (16 digits) and epoch
--   how many locks were forced
--   the time (milliseconds)
--   how long until the first of the locks waited for can end (milliseconds; '' if there is none)
--   the grant id of each waiter of this instance that is to confirm, and each lease that has ended
--     by itself: when (13 digits, milliseconds) and the grant
if ARGV[3] then
  alive(ARGV[1])
end
if ARGV[2] ~= '' then
  begin(ARGV[2], true) -- now, so that what is free does not wait for reassertion from its first use on
end
expire(100)
local answer = {redis.call('GET', highest) or '', redis.call('GET', prefix .. 'forced') or '0', string.format('%d', now), ''}
local soonest
for i = 3, #ARGV do
  look_at(ARGV[i])
  local lock = current()
  if not lock and redis.call('EXISTS', KEYS[2]) == 1 and not in_grace() then
    advance()
    lock = current()
  end
  if redis.call('PEXPIRE', KEYS[2], 60000) == 1 then
    redis.call('PEXPIRE', waiters(), 60000)
  end
  if lock then
    soonest = math.min(soonest or 60000, redis.call('PTTL', KEYS[1]))
    answer[4] = string.format('%d', soonest)
  end
  if lock and lock.pending == ARGV[1] then
    table.insert(answer, id_of(lock.grant))
  end
end
for _, ended in ipairs(over) do
  table.insert(answer, ended)
end
return answer
