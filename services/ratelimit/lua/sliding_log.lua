
-- A sliding log is a sorted set with a member for each unit: the id of its call and three digits.
-- Its score is the time of admission. Refused hits add nothing. It lives until a window after the
-- newest. Units that an instance hands out by itself are at most so many microseconds ahead of the
-- clock: autoBlock and maxAhead in auto_block.go, and take_log.lua.
local max_ahead = 50000

local function score(key, index)
  return tonumber(call('ZRANGE', key, index, index, 'WITHSCORES')[2])
end

-- Adds those units of a call that are not there, and returns how many.
local function add_units(key, id, cost, at)
  at = format('%d', at) -- cheaper than what the server makes of a number
  if cost == 1 then
    return call('ZADD', key, 'NX', at, id .. '000')
  end
  local units = {}
  for unit = 1, cost do
    units[2 * unit - 1] = at
    units[2 * unit] = format('%s%03d', id, unit - 1)
  end
  return call('ZADD', key, 'NX', unpack(units))
end

-- Returns 1 if the hit passes, 0 if it does not, -2 if what must be there is not; the key's time;
-- the units in the log; microseconds until the hit passes; nil; the time of the newest, if that is
-- later than the key's.
local function look_log(key, id, limit, window, cost, known, known_until)
  local now, used, last = time, 0, 0
  local newest = call('ZRANGE', key, '-1', '-1', 'WITHSCORES')
  if newest[2] then
    last = newest[2] + 0
    now = max(time, last - max_ahead)
  end
  if known ~= '' and known ~= newest[1] and known_until + 0 > now and not call('ZSCORE', key, known) then
    return -2, now, 0, 0, nil, 0
  end
  if newest[2] then
    call('ZREMRANGEBYSCORE', key, '-inf', format('%d', now - window))
    used = call('ZCARD', key)
  end
  local over = used + cost - limit
  if over <= 0 or cost == 0 or id ~= '' and call('ZSCORE', key, id .. '000') then
    return 1, now, used, 0, nil, last -- also a call that was admitted before, and whose reply got lost
  elseif cost > limit then
    return 0, now, used, window, nil, last
  end
  return 0, now, used, score(key, over - 1) + window - now, nil, last
end

-- Adds the hit, and returns the units in the log.
local function count_in_log(key, id, window, cost, now, used, last)
  used = used + add_units(key, id, cost, now)
  call('PEXPIREAT', key, format('%d', ceil((max(now, last) + window) / 1000)))
  return used
end

-- Returns the units that remain, and microseconds until more do.
local function sum_up_log(key, limit, window, now, used)
  if used == 0 then
    return limit, 0
  end
  -- Of those over the limit, if that was lowered, none is quota.
  return max(0, limit - used), score(key, max(0, used - limit)) + window - now
end
