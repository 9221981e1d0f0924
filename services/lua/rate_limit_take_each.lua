-- Decides about hits that have nothing to do with each other, each by itself: rate_limit_take.lua for the most frequent
-- case. The keys and answers are the same. It is written for speed: the script, the clock and its texts are paid for once
-- for all hits, text becomes a number by arithmetic, and a table is built only for several members.
--
-- KEYS[i] -> the admissions of hit i: a sorted set (sliding log) or a string (GCRA)
-- ARGV[7(i - 1) + 1] and on, for hit i ->
--   the call's id, 1 to 15 digits: repeating a call repeats its members. Empty: look, count nothing.
--   burst (0: sliding log), limit, window in microseconds, cost,
--   what must be there if Redis lost nothing, until when: both as in rate_limit_take.lua
--
-- Returns 6 integers for each hit: 1 if it passes; units remaining; microseconds until it passes; microseconds until
-- more quota; the server's time in microseconds, which never goes back for a key; the bucket's nonce (0: there is none).
-- The first is -1 if the hit could not be decided because its key holds something else, -2 if what must be there is
-- not: that does not concern the others.

local call, format, match, ceil, max, pcall = redis.call, string.format, string.match, math.ceil, math.max, pcall
local clock = call('TIME')
local time = clock[1] * 1000000 + clock[2]

local function texts_at(now, window)
  return {now = format('%d', now), gone = format('%d', now - window), ends = format('%d', (now + window + 999) / 1000)}
end

local function score(key, index)
  return tonumber(call('ZRANGE', key, index, index, 'WITHSCORES')[2])
end

local function add(key, id, cost, at)
  if cost == 1 then
    return call('ZADD', key, 'NX', at, id .. '000')
  end
  local members = {}
  for unit = 1, cost do
    members[2 * unit - 1] = at
    members[2 * unit] = format('%s%03d', id, unit - 1)
  end
  return call('ZADD', key, 'NX', unpack(members))
end

-- A sliding log: a member for each unit, its score the time of admission. It lives until a window after the newest.
local function decide_log(key, id, limit, window, cost, text, known, ends)
  local now, used, passes, retry, more = time, 0, 1, 0, 0
  local last = call('ZRANGE', key, '-1', '-1', 'WITHSCORES')
  local newest = last[2]
  if newest and newest + 0 > time then -- the clock was put back
    now = newest + 0
    text = texts_at(now, window)
  end
  if known ~= '' and known ~= last[1] and ends + 0 > now and not call('ZSCORE', key, known) then
    return -2, 0, 0, 0, now, 0
  end
  if newest then
    call('ZREMRANGEBYSCORE', key, '-inf', text.gone)
    used = call('ZCARD', key)
    if used > 0 then
      local first = used > limit and used - limit or '0' -- of those over the limit, if that was lowered, none is quota
      more = score(key, first) + window - now
    end
  end

  local over = used + cost - limit
  if over > 0 and cost > 0 then
    -- A call that was admitted before, and whose reply got lost, passes again.
    if id == '' or not call('ZSCORE', key, id .. '000') then
      passes, retry = 0, window
      if cost <= limit then
        retry = score(key, over - 1) + window - now
      end
    end
  elseif cost > 0 and id ~= '' then
    if used == 0 then
      more = window
    end
    used = used + add(key, id, cost, text.now)
    call('PEXPIREAT', key, text.ends)
  end
  return passes, used < limit and limit - used or 0, retry, more, now, 0
end

-- GCRA as a leaking bucket, with the numbers of rate_limit_take.lua.
local function decide_bucket(key, id, burst, limit, window, cost, known, known_until)
  local refill, now, level = max(1, limit - burst), time, 0
  local before, last, nonce, ends = match(call('GET', key) or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if before then
    now = max(time, last + 0)
    level = max(0, before - (now - last) * refill)
  end
  if known ~= '' and known_until + 0 > now then
    local made, wrote = match(known, '^(%d+) (%d+)$')
    if nonce ~= made or last + 0 < wrote + 0 then
      return -2, 0, 0, 0, now, 0
    end
  end
  local over, passes, retry, more = level - (burst - cost) * window, 1, 0, 0
  if over > 0 and cost > 0 then
    passes, retry = 0, cost > burst and window or ceil(over / refill)
  elseif cost > 0 and id ~= '' then
    level = level + cost * window
    nonce, ends = nonce or id, max((ends or 0) + 0, ceil(level / refill) + now)
    call('SET', key, format('%.0f %.0f %s %.0f', level, now, nonce, ends), 'PX', ceil((ends - time) / 1000))
  end
  local remaining = max(0, burst - ceil(level / window))
  if level > 0 then
    more = ceil((level - (burst - remaining - 1) * window) / refill)
  end
  return passes, remaining, retry, more, now, (nonce or 0) + 0
end

local texts = {} -- of the times that each window needs
local function decide(key, id, burst, limit, length, cost, known, ends)
  local window = length + 0
  if burst > 0 then
    return decide_bucket(key, id, burst, limit, window, cost, known, ends)
  end
  texts[length] = texts[length] or texts_at(time, window) -- the window as text: as a number it would be an index
  return decide_log(key, id, limit, window, cost, texts[length], known, ends)
end

local reply = {}
for i = 1, #KEYS do
  local a, r = 7 * i - 6, 6 * i - 5
  local done, passes, remaining, retry, more, now, nonce =
    pcall(decide, KEYS[i], ARGV[a], ARGV[a + 1] + 0, ARGV[a + 2] + 0, ARGV[a + 3], ARGV[a + 4] + 0, ARGV[a + 5], ARGV[a + 6])
  if not done then
    local wrong = type(passes) == 'table' and passes.err or passes
    if not string.find(wrong, 'WRONGTYPE', 1, true) then
      return redis.error_reply(wrong) -- it would be the same for the others
    end
    passes, remaining, retry, more, now, nonce = -1, 0, 0, 0, 0, 0
  end
  reply[r], reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4], reply[r + 5] = passes, remaining, retry, more, now, nonce
end
return reply
