-- Takes a block of admissions for one instance, and returns what is left of its earlier ones.
--
-- A block counts whole from the moment it is taken until its end and a window more. So whatever the
-- instance admits from it, and whenever until its end, no window holds more than the limit.
--
-- KEYS[1] -> the blocks: a sorted set, id -> when it leaves (microseconds). KEYS[2] -> their units:
--   a hash, id -> units.
-- ARGV[1] -> the new block's id; ARGV[2] -> limit; ARGV[3] -> window, ARGV[4] -> length of the
--   block, in microseconds
-- ARGV[5] -> units wanted, 0 takes none; ARGV[6] -> units that make it worth while, or that are
--   asked about
-- ARGV[7], ARGV[8] -> the latest block that must be there if Redis lost nothing (empty: none),
--   until when in microseconds
-- then any number of -> the id of a block that is over, the units used of it (negative: units not
-- used after all)
--
-- Returns units taken (0: refused); units remaining; microseconds until that many can be taken (0:
-- now); microseconds until more quota; the server's time. The first is -2 if what must be there is
-- not: then nothing was done, and the instance puts back the blocks that it took.
local blocks, sizes, id = KEYS[1], KEYS[2], ARGV[1]
local limit, window, length = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local wanted, least = tonumber(ARGV[5]), tonumber(ARGV[6])

-- A server that evicts keys may have taken one of the two. Then both are lost, or units would never
-- leave.
if call('EXISTS', blocks, sizes) == 1 then
  call('DEL', blocks, sizes)
end

local now = max(time, tonumber(call('HGET', sizes, 'now') or 0))
if ARGV[7] ~= '' and tonumber(ARGV[8]) > now and call('HEXISTS', sizes, ARGV[7]) == 0 then
  return {-2, 0, 0, 0, now}
end

for a = 9, #ARGV, 2 do
  local size = call('HGET', sizes, ARGV[a])
  if size then
    size = tonumber(size)
    local used = tonumber(ARGV[a + 1])
    if used < 0 then used = size + used end
    used = max(0, min(size, used))
    call('HINCRBY', sizes, 'used', used - size)
    if used == 0 then
      call('ZREM', blocks, ARGV[a])
      call('HDEL', sizes, ARGV[a])
    else -- what was used was used until now
      call('HSET', sizes, ARGV[a], used)
      if now + window < tonumber(call('ZSCORE', blocks, ARGV[a])) then
        call('ZADD', blocks, now + window, ARGV[a])
      end
    end
  end
end

local left = call('ZRANGEBYSCORE', blocks, '-inf', now)
for i = 1, #left do
  call('HINCRBY', sizes, 'used', -(call('HGET', sizes, left[i]) or 0))
  call('HDEL', sizes, left[i])
  call('ZREM', blocks, left[i])
end

local used = tonumber(call('HGET', sizes, 'used') or 0)
local taken, retry, more = 0, 0, 0
if call('ZSCORE', blocks, id) then
  taken = tonumber(call('HGET', sizes, id)) -- a repeated call: the reply got lost
elseif wanted > 0 and used + least <= limit then
  taken = min(wanted, limit - used)
  used = used + taken
  call('ZADD', blocks, now + length + window, id)
  call('HSET', sizes, id, taken)
  call('HINCRBY', sizes, 'used', taken)
end

-- Microseconds until so many units have left, at most a window.
local function leaves(units)
  local all = call('ZRANGE', blocks, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    units = units - call('HGET', sizes, all[i])
    if units <= 0 then
      return tonumber(all[i + 1]) - now
    end
  end
  return window
end

if taken == 0 and least > 0 and used + least > limit then
  retry = least <= limit and leaves(used + least - limit) or window
end
local first = call('ZRANGE', blocks, 0, 0, 'WITHSCORES')[2]
if first then
  more = used > limit and leaves(used - limit + 1) or tonumber(first) - now -- over it if the limit was lowered
  keep_blocks(blocks, sizes, now)
else
  call('DEL', blocks, sizes)
end
return {taken, max(0, limit - used), retry, more, now}
