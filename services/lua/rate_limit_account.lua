-- Tells Redis what one instance admitted, whether or not there is room for it: it has happened. That is what it admitted
-- while it could not ask, and, where Redis may have lost it, what Redis was told before. Telling twice changes nothing,
-- except what is added to a bucket.
--
-- KEYS[1] -> the admissions, as in rate_limit_take.lua. KEYS[2] -> when the key was reset, by the server's clock.
-- ARGV[1] -> burst (0: sliding log), ARGV[2] -> limit, ARGV[3] -> window in microseconds
-- ARGV[4] -> when the instance itself reset the key, in microseconds of the server's clock (0: it did not)
-- a sliding log: ARGV[5 + 4n] and on -> for each admission when it was, by the server's clock (0: Redis was not told),
--   how many microseconds ago, the id of its call, its cost
-- GCRA: ARGV[5], ARGV[6], ARGV[7], ARGV[8] -> the bucket as the instance last saw it: its nonce (empty: not at all), its
--   level, at what time, when the instance last added to it; ARGV[9] -> what is left of what it admitted without asking;
--   ARGV[10] -> a nonce never used before
--
-- Returns how much had been lost (units of a log, 1 for a bucket); the server's time; when the key was reset (0: it was
-- not), in microseconds: what was admitted until then is not added; the bucket's nonce; what is left in it; and of a log
-- when each admission was, by the server's clock, that Redis was not told (0: it counts no more).

local key, burst, limit, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]

local reset, there = tonumber(ARGV[4]), tonumber(redis.call('GET', KEYS[2]) or 0)
if reset > there then
  redis.call('SET', KEYS[2], string.format('%.0f', reset), 'PX', math.max(1, math.ceil((reset + window - time) / 1000)))
  if burst == 0 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', reset)
  end
else
  reset = there
end

if burst > 0 then
  local level, last, nonce, ends = string.match(redis.call('GET', key) or '', '^(%d+) (%d+) (%d+) (%d+)$')
  local refill, now, left, lost = math.max(1, limit - burst), math.max(time, tonumber(last or 0)), 0, 0
  if level then
    left = math.max(0, tonumber(level) - (now - last) * refill)
  end
  local known, seen = ARGV[5], tonumber(ARGV[7])
  if known ~= '' and seen > reset then
    local behind = nonce == known and tonumber(last) < tonumber(ARGV[8])
    local was = tonumber(ARGV[6]) - math.max(0, now - seen) * refill
    if was > left then
      left = was
      lost = (nonce ~= known or behind) and 1 or 0
    end
    if behind then -- the others must see that something was lost
      nonce = ARGV[10]
    end
  end
  left = left + tonumber(ARGV[9])
  if left > 0 then
    nonce, ends = nonce or ARGV[10], math.max(tonumber(ends or 0), math.ceil(left / refill) + now)
    redis.call('SET', key, string.format('%.0f %.0f %s %.0f', left, now, nonce, ends), 'PX', math.max(1, math.ceil((ends - time) / 1000)))
  end
  return {lost, now, reset, tonumber(nonce or 0), left}
end

local newest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or 0)
local gone = math.max(time, newest) - window
local added, lost, times = 0, 0, {}
for a = 5, #ARGV, 4 do
  local told = tonumber(ARGV[a])
  local at = told > 0 and told or time - ARGV[a + 1]
  if told == 0 then
    times[#times + 1] = tonumber(redis.call('ZSCORE', key, ARGV[a + 2] .. '000') or 0)
  end
  if at > gone and at > reset then
    local members = {}
    for unit = 1, tonumber(ARGV[a + 3]) do
      members[2 * unit - 1] = at
      members[2 * unit] = string.format('%s%03d', ARGV[a + 2], unit - 1)
    end
    local new = redis.call('ZADD', key, 'NX', unpack(members))
    added = added + new
    lost = lost + (told > 0 and new or 0)
    newest = math.max(newest, at)
    if told == 0 and times[#times] == 0 then
      times[#times] = at
    end
  end
end
if added > 0 then
  redis.call('PEXPIREAT', key, math.ceil((newest + window) / 1000))
end
return {lost, time, reset, 0, 0, unpack(times)}
