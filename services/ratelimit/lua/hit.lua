-- What both take scripts share, behind gcra.lua. Their keys, arguments and replies are the same:
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
local function look(i)
  local a = 8 * i - 7
  local hit = {
    id = ARGV[a], burst = tonumber(ARGV[a + 1]), limit = tonumber(ARGV[a + 2]), window = tonumber(ARGV[a + 3]),
    cost = tonumber(ARGV[a + 4]), shadow = ARGV[a + 5] == '1', known = ARGV[a + 6], known_until = tonumber(ARGV[a + 7]),
    now = time, lost = false, passes = false, used = 0, remaining = 0, retry = 0, more = 0,
    refill = 0, level = 0, ends = 0, nonce = false, -- of a bucket
  }
  if hit.burst == 0 then look_log(KEYS[i], hit) else look_bucket(KEYS[i], hit) end
  return hit
end

-- Counts the hit if it may, and answers it.
local function decide(i, hit, may_count, reply)
  local key, r, passes = KEYS[i], 6 * i - 5, hit.passes and 1 or 0
  if hit.lost then
    passes = -2
  else
    local counts = may_count and hit.passes and hit.cost > 0 and hit.id ~= ''
    if hit.burst == 0 then
      if counts then count_in_log(key, hit) end
      sum_up_log(key, hit)
    else
      if counts then count_in_bucket(key, hit) end
      sum_up_bucket(hit)
    end
  end
  reply[r], reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4], reply[r + 5] =
    passes, hit.remaining, hit.retry, hit.more, hit.now, tonumber(hit.nonce or 0)
end

