
-- Decides several hits together: all of them count, or none does. The keys have one hash tag.
-- Keys, arguments and replies: hit.lua.
--
-- Where an instance is asked for all of the keys often, it also counts admissions ahead, each of the
-- hit's cost, which the instance hands out by itself (autoBlock in auto_block.go). After the n keys
-- and their arguments come then for each hit:
-- KEYS[n + i] -> for a bucket, that units counted ahead may be in use
-- ARGV[8n + 6(i - 1) + 1] and on -> the id of the first of these admissions, the others follow; how
--   many are wanted; how long they can be used, in microseconds; of a log, the id of the first
--   admission that was counted ahead and not used, how many there are, the cost of each
--
-- After the other integers it returns for each hit how many it counted ahead: no more units than a
-- fiftieth of what remains, which says what remains after that.
local n = #KEYS
local ahead = #ARGV ~= 8 * n
if ahead then n = n / 2 end

local function arguments(i)
  local a = 8 * n + 6 * i - 5
  return ARGV[a] + 0, ARGV[a + 1] + 0, ARGV[a + 2] + 0, ARGV[a + 3] + 0, ARGV[a + 4] + 0, ARGV[a + 5] + 0
end

-- The members of so many admissions, behind their time if there is one.
local function members(first, count, cost, at)
  local units = {}
  for id = first, first + count - 1 do
    for unit = 0, cost - 1 do
      if at then units[#units + 1] = at end
      units[#units + 1] = format('%.0f%03d', id, unit)
    end
  end
  return units
end

local function ahead_in_log(key, window, cost, now, remaining, first, wanted, length)
  local count = min(wanted, floor(floor(remaining / 50) / cost))
  if count < 1 then
    return 0
  end
  call('ZADD', key, 'NX', unpack(members(first, count, cost, format('%d', now + length))))
  call('PEXPIREAT', key, format('%d', ceil((score(key, -1) + window) / 1000)))
  return count
end

-- Units leak out of a bucket before they are used. It is never less full than what blocks hold: it
-- begins with what leaks out until the end of the block, and refund.lua takes nothing out meanwhile.
local function ahead_in_bucket(key, in_use, burst, limit, window, cost, wanted, length)
  local refill = refill_of(burst, limit)
  local level, now, nonce, ends = read_bucket(key, refill)
  level = max(level, length * refill)
  local count = min(wanted, floor(floor((burst * window - level) / window / 50) / cost))
  if count < 1 then
    return 0
  end
  level = level + count * cost * window
  write_bucket(key, level, now, nonce, max(ends, ceil(level / refill) + now))
  call('SET', in_use, '', 'PX', ceil(length / 1000) + 1)
  return count, sum_up_bucket(burst, limit, window, level)
end

local hits, may_count, reply = {}, true, {}
for i = 1, n do
  local burst, limit, window, cost = numbers(i)
  if ahead and burst == 0 then
    local _, _, _, first, count, each = arguments(i)
    if count > 0 then
      call('ZREM', KEYS[i], unpack(members(first, count, each)))
    end
  end
  hits[i] = {burst, limit, window, cost, look(i, burst, limit, window, cost)}
  may_count = may_count and (hits[i][5] == 1 or hits[i][5] == 0 and ARGV[8 * i - 2] == '1')
end
for i = 1, n do
  answer(i, reply, may_count, unpack(hits[i], 1, 10))
end
for i = 1, ahead and n or 0 do
  local burst, limit, window, cost = numbers(i)
  local first, wanted, length = arguments(i)
  local r, count, remaining, more = 6 * i - 5, 0, nil, nil
  if may_count and reply[r] == 1 then
    if burst == 0 then
      count = ahead_in_log(KEYS[i], window, cost, reply[r + 4], reply[r + 1], first, wanted, length)
      reply[r + 1] = reply[r + 1] - count * cost
    else
      count, remaining, more = ahead_in_bucket(KEYS[i], KEYS[n + i], burst, limit, window, cost, wanted, length)
      reply[r + 1], reply[r + 3] = remaining or reply[r + 1], more or reply[r + 3]
    end
  end
  reply[6 * n + i] = count
end
return reply
