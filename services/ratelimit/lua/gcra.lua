
-- GCRA is a leaking bucket of whole numbers: a unit is worth window, and each microsecond refill
-- leaks out. So burst units pass at once and refill units in each further window. All numbers stay
-- below 2^53.
--
-- The bucket is a string "level last nonce ends". The level is that at the time last, and the nonce
-- the id of the call that made it. Ends is the latest time at which an instance may think that
-- something is in it. It expires then, and not before.
local function refill_of(burst, limit)
  return max(1, limit - burst)
end

-- The bucket as it is now; its nonce is nil if there is none. The last value is when it was last
-- written.
local function read_bucket(key, refill)
  local level, last, nonce, ends = match(call('GET', key) or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if not level then
    return 0, time, nil, 0, 0
  end
  last = last + 0
  local now = max(time, last)
  return max(0, level - (now - last) * refill), now, nonce, ends + 0, last
end

local function write_bucket(key, level, now, nonce, ends)
  call('SET', key, format('%.0f %.0f %s %.0f', level, now, nonce, ends), 'PX', max(1, ceil((ends - time) / 1000)))
end

-- Whether the bucket is not the one that is known, by its nonce and when the instance last added to
-- it.
local function lost_bucket(known, known_until, now, nonce, last)
  if known == '' or known_until + 0 <= now then
    return false
  end
  local made, wrote = match(known, '^(%d+) (%d+)$')
  return nonce ~= made or last < wrote + 0
end

-- Returns 1 if the hit passes, 0 if it does not, -2 if what must be there is not; the key's time;
-- the bucket's level; microseconds until the hit passes; the bucket's nonce and end.
local function look_bucket(key, burst, limit, window, cost, known, known_until)
  local refill = refill_of(burst, limit)
  local level, now, nonce, ends, last = read_bucket(key, refill)
  if known ~= '' and lost_bucket(known, known_until, now, nonce, last) then
    return -2, now, level, 0, nonce, ends
  end
  local over = level - (burst - cost) * window
  if over <= 0 or cost == 0 then
    return 1, now, level, 0, nonce, ends
  end
  return 0, now, level, cost > burst and window or ceil(over / refill), nonce, ends
end

-- Adds the hit, and returns the bucket's level and nonce.
local function count_in_bucket(key, id, burst, limit, window, cost, now, level, nonce, ends)
  level, nonce = level + cost * window, nonce or id
  write_bucket(key, level, now, nonce, max(ends, ceil(level / refill_of(burst, limit)) + now))
  return level, nonce
end

-- Returns the units that remain, and microseconds until more do.
local function sum_up_bucket(burst, limit, window, level)
  local remaining = max(0, burst - ceil(level / window))
  if level == 0 then
    return remaining, 0
  end
  return remaining, ceil((level - (burst - remaining - 1) * window) / refill_of(burst, limit))
end
