-- Decides about hits that have nothing to do with each other, each by itself. Keys, arguments and
-- replies: hit.lua, but for these:
-- ARGV[8(i - 1) + 6] -> sliding log: before when nothing leaves it, 0 if that is not known; GCRA:
--   when the instance last added to the bucket
-- ARGV[8(i - 1) + 7] -> GCRA: the bucket's nonce alone
-- The first number is -1 if the hit could not be decided because its key holds something else: that
-- does not concern the others.
--
-- Most decisions are made here, so it is all in one piece: to make the functions of sliding_log.lua
-- and gcra.lua, and to call them, would cost Redis more than what they do. Step by step it is the
-- same as those, and as sliding_log.go and gcra.go.
local reply = {}
for i = 1, #KEYS do
  local key, a, r = KEYS[i], 8 * i - 7, 6 * i - 5
  local id, burst, limit, window, cost = ARGV[a], ARGV[a + 1] + 0, ARGV[a + 2] + 0, ARGV[a + 3] + 0, ARGV[a + 4] + 0
  local known, passes, remaining, retry, more, now, nonce = ARGV[a + 6], 1, 0, 0, 0, time, 0
  local counts = cost > 0 and id ~= ''
  local held
  if burst == 0 then
    held = redis.pcall('ZRANGE', key, '-1', '-1', 'WITHSCORES')
  else
    held = redis.pcall('GET', key)
  end

  if type(held) == 'table' and held.err then
    if not string.find(held.err, 'WRONGTYPE', 1, true) then
      return redis.error_reply(held.err) -- it would be the same for the others
    end
    passes, now = -1, 0

  elseif burst == 0 then -- a sliding log
    local used, last = 0, 0
    if held[2] then
      last = held[2] + 0
      if last - 50000 > time then now = last - 50000 end -- max_ahead
    end
    if known ~= '' and known ~= held[1] and ARGV[a + 7] + 0 > now and not call('ZSCORE', key, known) then
      passes = -2
    else
      local leaves = ARGV[a + 5] + 0
      if held[2] then
        if leaves <= now then
          call('ZREMRANGEBYSCORE', key, '-inf', format('%d', now - window))
        end
        used = call('ZCARD', key)
      end
      local over = used + cost - limit
      if over > 0 and cost > 0 and not (id ~= '' and call('ZSCORE', key, id .. '000')) then
        passes, retry = 0, window
        if cost <= limit then
          retry = call('ZRANGE', key, over - 1, over - 1, 'WITHSCORES')[2] + window - now
        end
      elseif counts then
        local at = format('%d', now)
        if cost == 1 then
          used = used + call('ZADD', key, 'NX', at, id .. '000')
        else
          local units = {}
          for unit = 1, cost do
            units[2 * unit - 1], units[2 * unit] = at, format('%s%03d', id, unit - 1)
          end
          used = used + call('ZADD', key, 'NX', unpack(units))
        end
        call('PEXPIREAT', key, format('%d', ceil((max(now, last) + window) / 1000)))
      end
      remaining = limit - used
      if passes == 0 and cost == 1 then
        remaining, more = 0, retry
      elseif remaining < 0 then
        more = call('ZRANGE', key, -remaining, -remaining, 'WITHSCORES')[2] + window - now
        remaining = 0
      elseif leaves > now and held[2] then
        more = leaves - now
      elseif used > 0 then
        more = call('ZRANGE', key, '0', '0', 'WITHSCORES')[2] + window - now
      end
    end

  else -- GCRA
    local refill, level, last, made, ends = max(1, limit - burst), 0, 0, nil, 0
    if held then
      level, last, made, ends = match(held, '^(%d+) (%d+) (%d+) (%d+)$')
      last = last + 0
      if last > time then now = last end
      level = max(0, level - (now - last) * refill)
    end
    if known ~= '' and ARGV[a + 7] + 0 > now then
      if made ~= known or last < ARGV[a + 5] + 0 then passes = -2 end
    end
    if passes == 1 then
      local over = level - (burst - cost) * window
      if over > 0 and cost > 0 then
        passes, retry = 0, cost > burst and window or ceil(over / refill)
      elseif counts then
        made, level = made or id, level + cost * window
        ends = max(ends + 0, ceil(level / refill) + now)
        call('SET', key, format('%.0f %.0f %s %.0f', level, now, made, ends), 'PX', max(1, ceil((ends - time) / 1000)))
      end
      remaining = max(0, burst - ceil(level / window))
      if level > 0 then
        more = ceil((level - (burst - remaining - 1) * window) / refill)
      end
    end
    nonce = (made or 0) + 0
  end
  if #KEYS == 1 then
    return {passes, remaining, retry, more, now, nonce}
  end
  reply[r], reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4], reply[r + 5] = passes, remaining, retry, more, now, nonce
end
return reply
