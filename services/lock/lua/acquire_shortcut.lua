-- Takes a free lock that has no waiters: the most frequent case of acquire, without what only the
-- others need. Keys, arguments and effects are the same. Numbers of fixed width are compared as
-- text.
-- returns the fence and the shard's value
local shard = redis.call('GET', KEYS[4])
if shard and not ARGV[9] and redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[5]) == 0 then
  local clock = redis.call('TIME')
  local micros = clock[1] * 1000000 + clock[2]
  local fence = string.format('%016d', micros)
  local since = string.sub(fence, 1, 13)
  if fence > shard and since <= ARGV[3] then
    local grant = fence .. since .. ARGV[1]
    redis.call('ZADD', KEYS[3], string.format('%d', since + ARGV[2]), grant)
    redis.call('SETRANGE', KEYS[4], '0', ARGV[4] == '1' and fence or string.format('%016d', micros + ARGV[4] - 1))
    redis.call('SET', KEYS[1], grant, 'PX', ARGV[2])
    redis.pcall('PUBLISH', EVENTS, 'acquired\n' .. grant)
    return fence .. shard
  end
end
