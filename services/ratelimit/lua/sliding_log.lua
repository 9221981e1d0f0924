-- A sliding log is a sorted set with a member for each unit, the id of its call and three digits,
-- whose score is the time of admission. Refused hits add nothing. It lives until a window after the
-- newest.
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

local function look_log(key, hit)
  local newest = call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if newest[2] then
    hit.now = max(time, tonumber(newest[2]))
  end
  if hit.known ~= '' and hit.known_until > hit.now and hit.known ~= newest[1] and not call('ZSCORE', key, hit.known) then
    hit.lost = true
    return
  end
  if newest[2] then
    call('ZREMRANGEBYSCORE', key, '-inf', format('%d', hit.now - hit.window))
    hit.used = call('ZCARD', key)
  end
  local over = hit.used + hit.cost - hit.limit
  if over <= 0 or hit.cost == 0 or hit.id ~= '' and call('ZSCORE', key, hit.id .. '000') then
    hit.passes = true -- also a call that was admitted before, and whose reply got lost
  elseif hit.cost > hit.limit then
    hit.retry = hit.window
  else
    hit.retry = score(key, over - 1) + hit.window - hit.now
  end
end

local function count_in_log(key, hit)
  hit.used = hit.used + add_units(key, hit.id, hit.cost, hit.now)
  call('PEXPIREAT', key, format('%d', ceil((hit.now + hit.window) / 1000)))
end

local function sum_up_log(key, hit)
  hit.remaining = max(0, hit.limit - hit.used)
  if hit.used > 0 then -- of those over the limit, if that was lowered, none is quota
    hit.more = score(key, max(0, hit.used - hit.limit)) + hit.window - hit.now
  end
end

