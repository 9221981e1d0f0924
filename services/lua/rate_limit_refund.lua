-- Takes back what one admitted hit added, and nothing else.
--
-- KEYS[1] -> the admissions, as in rate_limit_take.lua
-- ARGV[1] -> the id of the call that added them
-- ARGV[2] -> burst (0: sliding log), ARGV[3] -> limit, ARGV[4] -> window in microseconds
-- ARGV[5] -> cost, ARGV[6] -> the server's time of the admission in microseconds
-- ARGV[7], ARGV[8] -> GCRA: what must be there, until when, as in rate_limit_take.lua
--
-- Returns 1 if something was taken back, -2 if what must be there is not; then of GCRA what is left in the bucket, the
-- server's time in microseconds, the bucket's nonce (0: there is none).

local key, id = KEYS[1], ARGV[1]
local burst, limit, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local cost, at = tonumber(ARGV[5]), tonumber(ARGV[6])

if burst == 0 then
  local members = {}
  for unit = 1, cost do
    members[unit] = string.format('%s%03d', id, unit - 1)
  end
  return {math.min(1, redis.call('ZREM', key, unpack(members))), 0, 0, 0}
end

local clock = redis.call('TIME')
local time = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local level, last, nonce, ends = string.match(redis.call('GET', key) or '', '^(%d+) (%d+) (%d+) (%d+)$')
local now = math.max(time, tonumber(last or 0))
if ARGV[7] ~= '' and tonumber(ARGV[8]) > now then
  local made, wrote = string.match(ARGV[7], '^(%d+) (%d+)$')
  if nonce ~= made or tonumber(last) < tonumber(wrote) then
    return {-2, 0, now, 0}
  end
end
if not level then
  return {0, 0, now, 0}
end
level, last = tonumber(level), tonumber(last)
local refill, taken = math.max(1, limit - burst), 0
-- What the hit added may have leaked out since: at most refill a microsecond.
-- Taking back more would give away quota that others have used.
local left = cost * window - math.min(math.max(0, now - at), math.ceil(cost * window / refill)) * refill
if left > 0 then
  level, taken = math.max(0, level - left), 1
  redis.call('SET', key, string.format('%.0f %.0f %s %s', level, last, nonce, ends), 'PX', math.max(1, math.ceil((tonumber(ends) - time) / 1000)))
end
return {taken, math.max(0, level - (now - last) * refill), now, tonumber(nonce)}
