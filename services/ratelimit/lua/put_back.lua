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
