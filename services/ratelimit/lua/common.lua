-- What the scripts of the rate limits share: this file, rate_limit_sliding_log.lua and rate_limit_gcra.lua stand before each.
-- Times are microseconds of the server's clock. A hit is a table:
--   id: the call's; empty: look, count nothing. burst, limit, window, cost; burst 0 is a sliding log
--   known: what must be there if Redis lost nothing (empty: nothing), known_until
--   now: the clock, which never goes back for a key; lost: what must be there is not; passes; used or level, as counted;
--   remaining; retry, until it passes; more, until more quota; nonce: the bucket's
--
-- core.go is the same in Go, step by step.
local call, tonumber, ceil, max, min, format = redis.call, tonumber, math.ceil, math.max, math.min, string.format
local clock = call('TIME')
local time = clock[1] * 1000000 + clock[2]

-- When a key was reset, 0 if it was not: the later of what the server remembers and what the instance does, and whether
-- that is news to the server.
local function reset_at(marker, reset, window)
  local there = tonumber(call('GET', marker) or 0)
  if reset <= there then
    return there, false
  end
  call('SET', marker, format('%.0f', reset), 'PX', max(1, ceil((reset + window - time) / 1000)))
  return reset, true
end

-- Blocks are a sorted set, id -> when it leaves, and a hash of their units. They live until the last one has left.
local function keep_blocks(blocks, sizes, now)
  local last = tonumber(call('ZRANGE', blocks, -1, -1, 'WITHSCORES')[2])
  local left = max(1, ceil((last - now) / 1000))
  call('HSET', sizes, 'now', now)
  call('PEXPIRE', blocks, left)
  call('PEXPIRE', sizes, left)
end

