-- Decides about hits of sliding logs that have nothing to do with each other, each by itself. It is
-- sliding_log.lua in one piece, as take_bucket.lua is gcra.lua.
--
-- KEYS[i] -> the log of hit i
-- ARGV[7(i - 1) + 1] and on, for hit i ->
--   the call's id as in hit.lua
--   limit, window in microseconds, cost, 0 to look
--   before when nothing leaves the log (0: that is not known)
--   what must be there if Redis lost nothing: the last member that the instance added (empty:
--   nothing); until when, which is when that leaves
--
-- Returns 5 integers for each hit: the first and second as take_bucket.lua; the units in the log;
-- when there is more quota (0: all is there, or that is when it passes); when it passes (0: at once,
-- or never).
local call = redis.call
local clock = call('TIME')
local time = clock[1] * 1000000 + clock[2]
local reply = {}
for i = 1, #KEYS do
  local key, a = KEYS[i], 7 * i - 6
  local id, limit, window, cost, known = ARGV[a], ARGV[a + 1] + 0, ARGV[a + 2] + 0, ARGV[a + 3] + 0, ARGV[a + 5]
  local passes, now, used, more, retry, last = 1, time, 0, 0, 0, 0
  local held = redis.pcall('ZRANGE', key, '-1', '-1')
  local newest = held[1]
  if newest then
    if newest == known then -- a window before it leaves; to have it from the server costs more
      last = ARGV[a + 6] - window
    else
      last = call('ZSCORE', key, newest) + 0
    end
    if last - 50000 > now then now = last - 50000 end -- max_ahead
  end
  if held.err then
    if not string.find(held.err, 'WRONGTYPE', 1, true) then
      return held -- it would be the same for the others
    end
    passes = -1
  elseif known ~= '' and known ~= newest and ARGV[a + 6] + 0 > now and not call('ZSCORE', key, known) then
    passes = -2
  else
    local leaves = ARGV[a + 4] + 0
    if newest then
      used = call('ZCARD', key)
      if leaves <= now or used + cost > limit then -- another instance may have put back older ones
        used = used - call('ZREMRANGEBYSCORE', key, '-inf', string.format('%d', now - window))
        leaves = 0
      end
    end
    local over = used + cost - limit
    if over > 0 and cost > 0 and not (id ~= '' and call('ZSCORE', key, id .. '000')) then
      passes = 0
      if cost <= limit then
        retry = call('ZRANGE', key, over - 1, over - 1, 'WITHSCORES')[2] + window
      end
    elseif cost > 0 and id ~= '' then
      local at = string.format('%d', now)
      if cost == 1 then
        used = used + call('ZADD', key, 'NX', at, id .. '000')
      else
        local units = {}
        for unit = 1, cost do
          units[2 * unit - 1], units[2 * unit] = at, string.format('%s%03d', id, unit - 1)
        end
        used = used + call('ZADD', key, 'NX', unpack(units))
      end
      if now > last then last = now end
      call('PEXPIREAT', key, string.format('%d', math.ceil((last + window) / 1000)))
    end
    over = used - limit
    if over < 0 then over = 0 end
    if passes == 0 and cost == 1 then
      -- more is there when it passes
    elseif over == 0 and newest and leaves > now then
      more = leaves
    elseif used > 0 then
      more = call('ZRANGE', key, over, over, 'WITHSCORES')[2] + window
    end
  end
  if #KEYS == 1 then
    return {passes, now, used, more, retry}
  end
  a = 5 * i
  reply[a - 4], reply[a - 3], reply[a - 2], reply[a - 1], reply[a] = passes, now, used, more, retry
end
return reply
