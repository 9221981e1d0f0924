-- Decides one hit of one sliding log: rate_limit_take.lua for the most frequent
-- case, without what only several hits need. The keys and answers are the same. It is written for speed: text becomes a
-- number by arithmetic, and a table is built only for several members.
--
-- KEYS[1] -> the admissions: a sorted set with a member for each unit, its score the time of admission. It lives until a
--   window after the newest
-- ARGV[1] -> the call's id, 1 to 15 digits: repeating a call repeats its members. Empty: look, count nothing.
-- ARGV[2] -> limit, ARGV[3] -> window in microseconds, ARGV[4] -> cost; none is 1
--
-- Returns 1 if it passes; units remaining; microseconds until it passes;
-- microseconds until more quota; the server's time in microseconds.

local call, format = redis.call, string.format
local key, id, limit, window, cost = KEYS[1], ARGV[1], ARGV[2] + 0, ARGV[3] + 0, (ARGV[4] or 1) + 0
local left = call('PTTL', key) -- before the time: Redis can be held up between the two
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local used, passes, retry, more = 0, 1, 0, 0

if left ~= -2 then
  -- Time never goes back for a key. Only one that lives for more than a window, or nearly, can be ahead of the clock.
  if left == -1 or left * 1000 > window - 2000 then
    now = math.max(now, tonumber(call('ZRANGE', key, '-1', '-1', 'WITHSCORES')[2]))
  end
  call('ZREMRANGEBYSCORE', key, '-inf', format('%d', now - window))
  used = call('ZCARD', key)
  if used > 0 then
    local first = used > limit and format('%d', used - limit) or '0' -- of those over the limit, if that was lowered, none is quota
    more = call('ZRANGE', key, first, first, 'WITHSCORES')[2] + window - now
  end
end

local over = used + cost - limit
if over > 0 and cost > 0 then
  -- A call that was admitted before, and whose reply got lost, passes again.
  if id == '' or not call('ZSCORE', key, id .. '000') then
    passes, retry = 0, window
    if cost <= limit then
      retry = call('ZRANGE', key, over - 1, over - 1, 'WITHSCORES')[2] + window - now
    end
  end
elseif cost > 0 and id ~= '' then
  if used == 0 then
    more = window
  end
  local at, first = format('%d', now), id .. '000'
  if cost == 1 then
    used = used + call('ZADD', key, 'NX', at, first)
  else
    local members = {at, first}
    for unit = 2, cost do
      members[2 * unit - 1] = at
      members[2 * unit] = format('%s%03d', id, unit - 1)
    end
    used = used + call('ZADD', key, 'NX', unpack(members))
  end
  call('PEXPIREAT', key, format('%d', (now + window + 999) / 1000)) -- rounded up
end
return {passes, used < limit and limit - used or 0, retry, more, now}
