-- How take.lua looks at a hit and answers it, behind gcra.lua. These are its keys, arguments and
-- replies:
-- KEYS[i] -> the admissions of hit i: a sorted set (sliding log) or a string (GCRA)
-- ARGV[8(i - 1) + 1] and on, for hit i ->
--   the call's id, 1 to 15 digits: repeating a call repeats its members. Empty: look, count nothing
--   burst (0: sliding log), limit, window in microseconds, cost
--   1 if a shadow hit: it never refuses the others
--   what must be there if Redis lost nothing (empty: nothing), until when in microseconds:
--     a sliding log: the last member that the instance added
--     GCRA: the bucket's nonce and when the instance last added to it
--
-- Returns 6 integers for each hit: 1 if it passes; units remaining; microseconds until it passes (0
-- if it does); microseconds until more quota (0: all is there); the server's time; the bucket's
-- nonce (0: there is none). The first is -2 if what must be there is not: then nothing was decided,
-- and the instance puts back what it admitted.
-- In between, a hit is its four numbers and what look_log or look_bucket returns; used is the
-- bucket's level, too, and ends the newest of a log.
local function numbers(i)
  local a = 8 * i - 6
  return ARGV[a] + 0, ARGV[a + 1] + 0, ARGV[a + 2] + 0, ARGV[a + 3] + 0
end

local function look(i, burst, limit, window, cost)
  local a = 8 * i - 7
  if burst == 0 then
    return look_log(KEYS[i], ARGV[a], limit, window, cost, ARGV[a + 6], ARGV[a + 7])
  end
  return look_bucket(KEYS[i], burst, limit, window, cost, ARGV[a + 6], ARGV[a + 7])
end

-- Counts the hit if it may, and answers it.
local function answer(i, reply, may_count, burst, limit, window, cost, passes, now, used, retry, nonce, ends)
  local id, r, remaining, more = ARGV[8 * i - 7], 6 * i - 5, 0, 0
  local counts = may_count and passes == 1 and cost > 0 and id ~= ''
  if passes == -2 then
    -- nothing was decided
  elseif burst == 0 then
    if counts then used = count_in_log(KEYS[i], id, window, cost, now, used, ends) end
    remaining, more = sum_up_log(KEYS[i], limit, window, now, used)
  else
    if counts then used, nonce = count_in_bucket(KEYS[i], id, burst, limit, window, cost, now, used, nonce, ends) end
    remaining, more = sum_up_bucket(burst, limit, window, used)
  end
  reply[r], reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4], reply[r + 5] =
    passes, remaining, retry, more, now, (nonce or 0) + 0
end
