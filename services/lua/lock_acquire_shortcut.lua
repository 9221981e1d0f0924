-- Takes a free lock for which nobody waits: lock_acquire.lua for the most frequent case, without what only the others
-- need. Keys, arguments and effects are the same.
-- returns 1, the fence and the shard's epoch
local shard = redis.call('GET', KEYS[4])
if shard and ARGV[8] == '' and redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
  local clock = redis.call('TIME')
  local micros = clock[1] * 1000000 + clock[2]
  if micros > tonumber(string.sub(shard, 1, 16)) and (ARGV[4] == '' or micros < ARGV[4] * 1000) then
    local fence = string.format('%016d', micros)
    local since = string.sub(fence, 1, 13)
    local grant = fence .. since .. ARGV[1]
    redis.call('SETRANGE', KEYS[4], 0, ARGV[5] == '1' and fence or string.format('%016d', micros + ARGV[5] - 1))
    redis.call('SET', KEYS[1], '+' .. grant, 'PX', ARGV[2])
    redis.call('ZADD', KEYS[3], since + ARGV[2], grant)
    redis.call('PUBLISH', ARGV[3], 'acquired\n' .. grant)
    return {1, fence, string.sub(shard, 17)}
  end
end
