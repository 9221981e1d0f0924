-- GCRA is a leaking bucket of whole numbers: a unit is worth window, and each microsecond refill
-- leaks out, so burst units pass at once and refill units in each further window. All numbers stay
-- below 2^53.
--
-- The bucket is a string "level last nonce ends": the level at the time last, the id of the call
-- that made it, and the latest time at which an instance may think that something is in it. It
-- expires then, and not before.
local function refill_of(burst, limit)
  return max(1, limit - burst)
end

-- The bucket as it is now; its nonce is nil if there is none. The last value is when it was last
-- written.
local function read_bucket(key, refill)
  local level, last, nonce, ends = string.match(call('GET', key) or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if not level then
    return 0, time, nil, 0, 0
  end
  last = tonumber(last)
  local now = max(time, last)
  return max(0, level - (now - last) * refill), now, nonce, tonumber(ends), last
end

local function write_bucket(key, level, now, nonce, ends)
  call('SET', key, format('%.0f %.0f %s %.0f', level, now, nonce, ends), 'PX', max(1, ceil((ends - time) / 1000)))
end

-- Whether the bucket is not the one that is known, by its nonce and when the instance last added to
-- it.
local function lost_bucket(known, known_until, now, nonce, last)
  if known == '' or known_until <= now then
    return false
  end
  local made, wrote = string.match(known, '^(%d+) (%d+)$')
  return nonce ~= made or last < tonumber(wrote)
end

local function look_bucket(key, hit)
  local last
  hit.refill = refill_of(hit.burst, hit.limit)
  hit.level, hit.now, hit.nonce, hit.ends, last = read_bucket(key, hit.refill)
  hit.lost = lost_bucket(hit.known, hit.known_until, hit.now, hit.nonce, last)
  local over = hit.level - (hit.burst - hit.cost) * hit.window
  if over <= 0 or hit.cost == 0 then
    hit.passes = true
  elseif hit.cost > hit.burst then
    hit.retry = hit.window
  else
    hit.retry = ceil(over / hit.refill)
  end
end

local function count_in_bucket(key, hit)
  hit.level = hit.level + hit.cost * hit.window
  hit.nonce = hit.nonce or hit.id
  write_bucket(key, hit.level, hit.now, hit.nonce, max(hit.ends, ceil(hit.level / hit.refill) + hit.now))
end

local function sum_up_bucket(hit)
  hit.remaining = max(0, hit.burst - ceil(hit.level / hit.window))
  if hit.level > 0 then
    hit.more = ceil((hit.level - (hit.burst - hit.remaining - 1) * hit.window) / hit.refill)
  end
end

