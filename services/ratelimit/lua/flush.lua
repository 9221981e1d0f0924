-- Publishes what one instance admitted, whether or not there is room for it: it has happened. That
-- is what it admitted without Redis and, where Redis may have lost it, what Redis had before. To
-- repeat it changes nothing, except what is added to a bucket.
--
-- KEYS[1] -> the admissions. KEYS[2] -> when the key was reset, by the server's clock.
-- ARGV[1] -> burst (0: sliding log), ARGV[2] -> limit, ARGV[3] -> window in microseconds
-- ARGV[4] -> when the instance itself reset the key, in microseconds of the server's clock (0: it
--   did not)
-- a sliding log: ARGV[5 + 4n] and on -> for each admission when it was, by the server's clock (0:
--   Redis never had it), how many microseconds ago, the id of its call, its cost
-- GCRA: ARGV[5], ARGV[6], ARGV[7], ARGV[8] -> the bucket as the instance last saw it: its nonce
--   (empty: not at all), its level, at what time, when the instance last added to it; ARGV[9] ->
--   what is left of what it admitted without Redis; ARGV[10] -> a nonce never used before
--
-- Returns how much had been lost (units of a log, 1 for a bucket); the server's time; when the key
-- was reset (0: it was not), in microseconds: what was admitted until then is not added; the
-- bucket's nonce; what is left in it; and of a log for each admission that Redis never had when it
-- was, by the server's clock (0: it counts no more).
local key, burst, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3])
local reset, unknown = reset_at(KEYS[2], tonumber(ARGV[4]), window)

if burst > 0 then
  local refill, lost = refill_of(burst, tonumber(ARGV[2])), 0
  local level, now, nonce, ends, last = read_bucket(key, refill)
  local known, seen = ARGV[5], tonumber(ARGV[7])
  if known ~= '' and seen > reset then
    local behind = nonce == known and last < tonumber(ARGV[8])
    local was = ARGV[6] - max(0, now - seen) * refill
    if was > level then
      level, lost = was, (nonce ~= known or behind) and 1 or 0
    end
    if behind then -- the others must see that something was lost
      nonce = ARGV[10]
    end
  end
  level = level + ARGV[9]
  if level > 0 then
    nonce = nonce or ARGV[10]
    write_bucket(key, level, now, nonce, max(ends, ceil(level / refill) + now))
  end
  return {lost, now, reset, tonumber(nonce or 0), level}
end

if unknown then
  call('ZREMRANGEBYSCORE', key, '-inf', reset)
end
local newest = score(key, -1) or 0
local gone = max(time, newest - max_ahead) - window
local added, lost, times = 0, 0, {}
for a = 5, #ARGV, 4 do
  local had, id = tonumber(ARGV[a]), ARGV[a + 2]
  local at = had > 0 and had or time - ARGV[a + 1]
  local counts = at > gone and at > reset
  if had == 0 then
    times[#times + 1] = tonumber(call('ZSCORE', key, id .. '000') or counts and at or 0)
  end
  if counts then
    local new = add_units(key, id, tonumber(ARGV[a + 3]), at)
    added = added + new
    lost = lost + (had > 0 and new or 0)
    newest = max(newest, at)
  end
end
if added > 0 then
  call('PEXPIREAT', key, ceil((newest + window) / 1000))
end
return {lost, time, reset, 0, 0, unpack(times)}
