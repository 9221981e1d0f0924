-- Decides several hits together: all of them count, or none does.
--
-- KEYS[i] -> the admissions of hit i: a sorted set (sliding log) or a string (GCRA). One hash tag.
-- ARGV[1] -> the call's id, 1 to 15 digits: repeating a call repeats its members. Empty: look, count nothing.
-- ARGV[2 + 7(i - 1)] and on, for hit i ->
--   burst (0: sliding log), limit, window in microseconds, cost, 1 if a shadow hit (it never refuses),
--   what must be there if Redis lost nothing (empty: nothing), until when in microseconds:
--     a sliding log: the last member that the instance added
--     GCRA: the bucket's nonce and when the instance last added to it
--
-- Returns 6 integers for each hit: 1 if it passes; units remaining; microseconds
-- until it passes (0 if it does); microseconds until more quota (0: all is
-- there); the server's time in microseconds, which never goes back for a key; the bucket's nonce (0: there is none).
-- The first is -2 if what must be there is not: then nothing was decided, and the instance puts back what it admitted.
--
-- services/rate_limit_core.go is the same in Go, step by step.

local call, ceil, max, match = redis.call, math.ceil, math.max, string.match
local id = ARGV[1]
local clock = call('TIME')
local time = clock[1] * 1000000 + clock[2]

-- A sliding log: one member for each unit, its score the time of admission.
-- Denied hits add nothing.
local function score(key, index)
  return tonumber(call('ZRANGE', key, index, index, 'WITHSCORES')[2])
end

local function look_log(key, hit)
  local newest = call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if newest[2] then
    hit.now = max(time, tonumber(newest[2]))
  end
  hit.forgotten = hit.known ~= '' and hit.until_when > hit.now and hit.known ~= newest[1] and not call('ZSCORE', key, hit.known)
  if newest[2] then
    call('ZREMRANGEBYSCORE', key, '-inf', hit.now - hit.window)
    hit.used = call('ZCARD', key)
  end
  local over = hit.used + hit.cost - hit.limit
  if over <= 0 or hit.cost == 0 then
    hit.passes = true
  elseif id ~= '' and call('ZSCORE', key, id .. '000') then
    hit.passes = true -- this call was admitted before, its reply got lost
  elseif hit.cost > hit.limit then
    hit.retry = hit.window
  else
    hit.retry = score(key, over - 1) + hit.window - hit.now
  end
end

local function add_to_log(key, hit)
  local members = {}
  for unit = 1, hit.cost do
    members[2 * unit - 1] = hit.now
    members[2 * unit] = string.format('%s%03d', id, unit - 1)
  end
  hit.used = hit.used + call('ZADD', key, 'NX', unpack(members))
  call('PEXPIREAT', key, ceil((hit.now + hit.window) / 1000))
end

local function sum_up_log(key, hit)
  hit.remaining = max(0, hit.limit - hit.used)
  if hit.used > 0 then
    hit.more = score(key, max(0, hit.used - hit.limit)) + hit.window - hit.now
  end
end

-- GCRA as a leaking bucket of whole numbers: a unit is worth window, and each
-- microsecond refill leaks out, so burst units pass at once and refill units in
-- each further window. All numbers stay below 2^53.
--
-- The string is "level last nonce ends": the level at the time last, the id of the call that made the bucket, and the
-- latest time at which an instance may think that something is in it. It expires then, and not before.
local function look_bucket(key, hit)
  hit.refill = max(1, hit.limit - hit.burst)
  local level, last, nonce, ends = match(call('GET', key) or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if level then
    level, last = tonumber(level), tonumber(last)
    hit.now, hit.nonce, hit.ends = max(time, last), nonce, tonumber(ends)
    if hit.now - last < ceil(level / hit.refill) then
      hit.level = level - (hit.now - last) * hit.refill
    end
  end
  if hit.known ~= '' and hit.until_when > hit.now then
    local known, wrote = match(hit.known, '^(%d+) (%d+)$')
    hit.forgotten = nonce ~= known or last < tonumber(wrote)
  end
  local over = hit.level - (hit.burst - hit.cost) * hit.window
  if over <= 0 or hit.cost == 0 then
    hit.passes = true
  elseif hit.cost > hit.burst then
    hit.retry = hit.window
  else
    hit.retry = ceil(over / hit.refill)
  end
end

local function add_to_bucket(key, hit)
  hit.level = hit.level + hit.cost * hit.window
  hit.nonce = hit.nonce or id
  hit.ends = max(hit.ends, ceil(hit.level / hit.refill) + hit.now)
  call('SET', key, string.format('%.0f %.0f %s %.0f', hit.level, hit.now, hit.nonce, hit.ends), 'PX', ceil((hit.ends - time) / 1000))
end

local function sum_up_bucket(hit)
  hit.remaining = max(0, hit.burst - ceil(hit.level / hit.window))
  if hit.level > 0 then
    hit.more = ceil((hit.level - (hit.burst - hit.remaining - 1) * hit.window) / hit.refill)
  end
end

local hits, refused, forgotten = {}, false, false
for i = 1, #KEYS do
  local a = 7 * i - 5
  local hit = {
    burst = tonumber(ARGV[a]), limit = tonumber(ARGV[a + 1]), window = tonumber(ARGV[a + 2]), cost = tonumber(ARGV[a + 3]),
    known = ARGV[a + 5], until_when = tonumber(ARGV[a + 6]),
    now = time, used = 0, level = 0, ends = 0, passes = false, retry = 0, remaining = 0, more = 0,
  }
  if hit.burst == 0 then look_log(KEYS[i], hit) else look_bucket(KEYS[i], hit) end
  refused = refused or (not hit.passes and ARGV[a + 4] ~= '1')
  forgotten = forgotten or hit.forgotten
  hits[i] = hit
end

local reply = {}
for i = 1, #KEYS do
  local hit = hits[i]
  local counts = id ~= '' and not refused and not forgotten and hit.passes and hit.cost > 0
  if hit.burst == 0 then
    if counts then add_to_log(KEYS[i], hit) end
    sum_up_log(KEYS[i], hit)
  else
    if counts then add_to_bucket(KEYS[i], hit) end
    sum_up_bucket(hit)
  end
  local r = 6 * i - 6
  reply[r + 1] = hit.forgotten and -2 or hit.passes and 1 or 0
  reply[r + 2] = hit.remaining
  reply[r + 3] = hit.retry
  reply[r + 4] = hit.more
  reply[r + 5] = hit.now
  reply[r + 6] = tonumber(hit.nonce or 0)
end
return reply
