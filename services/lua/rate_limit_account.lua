-- Adds what an instance admitted while it could not ask, whether or not there
-- is room for it: it has happened.
--
-- KEYS[1] -> the admissions, as in rate_limit_take.lua
-- ARGV[1] -> burst (0: sliding log), ARGV[2] -> limit, ARGV[3] -> window in microseconds
-- a sliding log: ARGV[4 + 2n], ARGV[5 + 2n] -> how many microseconds ago the unit was admitted, the id of its call
-- GCRA: ARGV[4] -> what is left of it in the bucket
--
-- Returns how many units of a log were added: one that is there already, because
-- only the reply got lost, is not added again.

local key, burst, limit, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]

if burst > 0 then
  local level, last = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
  local refill, now, left = math.max(1, limit - burst), time, 0
  if level then
    now = math.max(time, tonumber(last))
    left = math.max(0, tonumber(level) - (now - tonumber(last)) * refill)
  end
  left = left + tonumber(ARGV[4])
  redis.call('SET', key, string.format('%.0f %.0f', left, now), 'PX', math.max(1, math.ceil((left / refill + now - time) / 1000)))
  return 0
end

local added, newest, units = 0, 0, {}
for a = 4, #ARGV, 2 do
  local at, id = time - tonumber(ARGV[a]), ARGV[a + 1]
  local unit = units[id] or 0
  units[id] = unit + 1
  added = added + redis.call('ZADD', key, 'NX', at, string.format('%s%03d', id, unit))
  newest = math.max(newest, at)
end
if added > 0 then
  newest = math.max(newest, tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]))
  redis.call('PEXPIREAT', key, math.ceil((newest + window) / 1000))
end
return added
