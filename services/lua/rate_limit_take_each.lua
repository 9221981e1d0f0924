-- Decides about hits that have nothing to do with each other, each by itself: rate_limit_take.lua for the most frequent
-- case. The keys and answers are the same. It is written for speed: the script, the clock and its texts are paid for once
-- for all hits, text becomes a number by arithmetic, and a table is built only for several members.
--
-- KEYS[i] -> the admissions of hit i: a sorted set (sliding log) or a string (GCRA)
-- ARGV[5(i - 1) + 1] and on, for hit i ->
--   the call's id, 1 to 15 digits: repeating a call repeats its members. Empty: look, count nothing.
--   burst (0: sliding log), limit, window in microseconds, cost
--
-- Returns 5 integers for each hit: 1 if it passes; units remaining; microseconds until it passes; microseconds until
-- more quota; the server's time in microseconds, which never goes back for a key. The first is -1 if the hit could not
-- be decided because its key holds something else: that does not concern the others.

local call, format, ceil, max, pcall = redis.call, string.format, math.ceil, math.max, pcall
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
local function decide_log(key, id, limit, window, cost, text)
  local now, used, passes, retry, more = time, 0, 1, 0, 0
  local newest = call('ZRANGE', key, '-1', '-1', 'WITHSCORES')[2]
  if newest then
    if newest + 0 > time then -- the clock was put back
      now = newest + 0
      text = texts_at(now, window)
    end
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
  return passes, used < limit and limit - used or 0, retry, more, now
end

-- GCRA as a leaking bucket, with the numbers of rate_limit_take.lua.
local function decide_bucket(key, id, burst, limit, window, cost)
  local refill, now, level = max(1, limit - burst), time, 0
  local before, last = string.match(call('GET', key) or '', '^(%d+) (%d+)$')
  if before then
    now = max(time, last + 0)
    level = max(0, before - (now - last) * refill)
  end
  local over, passes, retry, more = level - (burst - cost) * window, 1, 0, 0
  if over > 0 and cost > 0 then
    passes, retry = 0, cost > burst and window or ceil(over / refill)
  elseif cost > 0 and id ~= '' then
    level = level + cost * window
    call('SET', key, format('%.0f %.0f', level, now), 'PX', ceil((level / refill + now - time) / 1000))
  end
  local remaining = max(0, burst - ceil(level / window))
  if level > 0 then
    more = ceil((level - (burst - remaining - 1) * window) / refill)
  end
  return passes, remaining, retry, more, now
end

local texts = {} -- of the times that each window needs
local function decide(key, id, burst, limit, length, cost)
  local window = length + 0
  if burst > 0 then
    return decide_bucket(key, id, burst, limit, window, cost)
  end
  texts[length] = texts[length] or texts_at(time, window) -- the window as text: as a number it would be an index
  return decide_log(key, id, limit, window, cost, texts[length])
end

local reply = {}
for i = 1, #KEYS do
  local a = 5 * i - 4
  local done, passes, remaining, retry, more, now =
    pcall(decide, KEYS[i], ARGV[a], ARGV[a + 1] + 0, ARGV[a + 2] + 0, ARGV[a + 3], ARGV[a + 4] + 0)
  if not done then
    local wrong = type(passes) == 'table' and passes.err or passes
    if not string.find(wrong, 'WRONGTYPE', 1, true) then
      return redis.error_reply(wrong) -- it would be the same for the others
    end
    passes, remaining, retry, more, now = -1, 0, 0, 0, 0
  end
  reply[a], reply[a + 1], reply[a + 2], reply[a + 3], reply[a + 4] = passes, remaining, retry, more, now
end
return reply
