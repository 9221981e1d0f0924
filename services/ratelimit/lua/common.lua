-- What the scripts share: this file, sliding_log.lua and gcra.lua stand before each of them. Times are
-- microseconds of the server's clock. A hit is a table:
--   id           the call's; empty: look, count nothing
--   burst        0 for a sliding log; limit, window, cost
--   known        what must be there if Redis lost nothing (empty: nothing), known_until
--   now          the clock, which never goes back for a key
--   lost         what must be there is not
--   passes       and used or level, as counted; remaining; retry, until it passes; more, until more
--                quota; nonce, the bucket's
--
-- sliding_log.go and gcra.go are the same in Go, step by step.
local call, tonumber, ceil, max, min, format = redis.call, tonumber, math.ceil, math.max, math.min, string.format
local clock = call('TIME')
local time = clock[1] * 1000000 + clock[2]

-- When a key was reset, 0 if it was not: the later of what the server and the instance remember.
-- And whether the server did not know that one.
local function reset_at(marker, reset, window)
  local there = tonumber(call('GET', marker) or 0)
  if reset <= there then
    return there, false
  end
  call('SET', marker, format('%.0f', reset), 'PX', max(1, ceil((reset + window - time) / 1000)))
  return reset, true
end

-- Blocks are a sorted set, id -> when it leaves, and a hash of their units. They live until the
-- last one has left.
local function keep_blocks(blocks, sizes, now)
  local last = tonumber(call('ZRANGE', blocks, -1, -1, 'WITHSCORES')[2])
  local left = max(1, ceil((last - now) / 1000))
  call('HSET', sizes, 'now', now)
  call('PEXPIRE', blocks, left)
  call('PEXPIRE', sizes, left)
end

