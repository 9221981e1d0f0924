-- Decides about hits of buckets that have nothing to do with each other, each by itself. It is
-- gcra.lua in one piece, and leaves to the instance what that can reckon itself: most decisions are
-- made here or in take_log.lua, and each function, argument and number would cost Redis more than
-- what they do with it.
--
-- KEYS[i] -> the bucket of hit i
-- ARGV[7(i - 1) + 1] and on, for hit i ->
--   the call's id as in hit.lua
--   what leaks out in a microsecond; the level up to which the hit passes; what it adds, 0 to look
--   what must be there if Redis lost nothing: the bucket's nonce (empty: nothing), when the
--   instance last added to it; until when
--
-- Returns 4 integers for each hit: 1 if it passes, else 0, -2 if what must be there is not, -1 if
-- the key holds something else, which does not concern the others; the time; the bucket's level;
-- its nonce (0: there is none).
local call, ceil = redis.call, math.ceil
local clock = call('TIME')
local time = clock[1] * 1000000 + clock[2]
local reply = {}
for i = 1, #KEYS do
  local key, a = KEYS[i], 7 * i - 6
  local refill, known, passes, now, level, made, last, ends = ARGV[a + 1] + 0, ARGV[a + 4], 1, time, 0, nil, 0, 0
  local held = redis.pcall('GET', key)
  if held then
    if held.err then
      if not string.find(held.err, 'WRONGTYPE', 1, true) then
        return held -- it would be the same for the others
      end
      passes = -1
    else
      level, last, made, ends = string.match(held, '^(%d+) (%d+) (%d+) (%d+)$')
      last = last + 0
      if last > now then now = last end
      level = level - (now - last) * refill
      if level < 0 then level = 0 end
    end
  end
  if passes == -1 then
    -- nothing is decided
  elseif known ~= '' and (made ~= known or last < ARGV[a + 5] + 0) and ARGV[a + 6] + 0 > now then
    passes = -2
  elseif level > ARGV[a + 2] + 0 then
    passes = 0
  elseif ARGV[a] ~= '' then
    local adds = ARGV[a + 3] + 0
    if adds > 0 then
      made, level = made or ARGV[a], level + adds
      ends = ends + 0
      local empty = ceil(level / refill) + now
      if empty > ends then ends = empty end
      call('SET', key, string.format('%d %d %s %d', level, now, made, ends), 'PX', ceil((ends - time) / 1000))
    end
  end
  made = (made or 0) + 0
  if #KEYS == 1 then
    return {passes, now, level, made}
  end
  a = 4 * i
  reply[a - 3], reply[a - 2], reply[a - 1], reply[a] = passes, now, level, made
end
return reply
