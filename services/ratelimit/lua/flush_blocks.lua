-- Puts back the blocks that one instance took, as far as Redis has lost them. To repeat it changes
-- nothing.
--
-- KEYS[1] -> the blocks, KEYS[2] -> their units, as in block.lua. KEYS[3] -> when the key was reset
-- ARGV[1] -> window in microseconds, ARGV[2] -> when the instance itself reset the key (0: it did
--   not)
-- then for each block -> its id, its units, when it was taken and when it leaves, by the server's
-- clock
--
-- Returns how many had been lost; the server's time; when the key was reset (0: it was not), in
-- microseconds: what was taken until then is not put back.
local blocks, sizes = KEYS[1], KEYS[2]
local reset = reset_at(KEYS[3], tonumber(ARGV[2]), tonumber(ARGV[1]))
local now, lost = max(time, tonumber(call('HGET', sizes, 'now') or 0)), 0
for a = 3, #ARGV, 4 do
  local id, units, leaves = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 3])
  if leaves > now and tonumber(ARGV[a + 2]) > reset and call('HSETNX', sizes, id, units) == 1 then
    call('HINCRBY', sizes, 'used', units)
    call('ZADD', blocks, leaves, id)
    lost = lost + 1
  end
end
if lost > 0 then
  keep_blocks(blocks, sizes, now)
end
return {lost, time, reset}
