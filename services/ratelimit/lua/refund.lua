-- Takes back what admitted hits added, and nothing else.
--
-- KEYS[1] -> the admissions. KEYS[2] -> GCRA: is there while units counted ahead may be in use
-- ARGV[1] -> the id of the call that added them
-- ARGV[2] -> burst (0: sliding log), ARGV[3] -> limit, ARGV[4] -> window in microseconds
-- ARGV[5] -> cost, ARGV[6] -> the server's time of the admission in microseconds
-- ARGV[7] -> sliding log: how many such admissions, their ids one after the other
-- ARGV[8], ARGV[9] -> GCRA: what must be there, until when, as in hit.lua
--
-- Returns 1 if something was taken back, -2 if what must be there is not; then of GCRA what is left
-- in the bucket, the server's time in microseconds, the bucket's nonce (0: there is none).
local key, id, burst, window, cost = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
if burst == 0 then
  local units = {}
  for of = id + 0, id + ARGV[7] - 1 do
    for unit = 0, cost - 1 do
      units[#units + 1] = format('%.0f%03d', of, unit)
    end
  end
  return {min(1, call('ZREM', key, unpack(units))), 0, 0, 0}
end

local refill = refill_of(burst, tonumber(ARGV[3]))
local level, now, nonce, ends, last = read_bucket(key, refill)
if lost_bucket(ARGV[8], tonumber(ARGV[9]), now, nonce, last) then
  return {-2, 0, now, 0}
end
-- What the hit added may have leaked out since: at most refill a microsecond.
-- Taking back more would give away quota that others have used.
local left = cost * window - min(max(0, now - ARGV[6]), ceil(cost * window / refill)) * refill
if not nonce or left <= 0 or call('EXISTS', KEYS[2]) == 1 then -- what is held must not leak: take.lua
  return {0, level, now, tonumber(nonce or 0)}
end
level = max(0, level - left)
write_bucket(key, level, now, nonce, ends)
return {1, level, now, tonumber(nonce)}
