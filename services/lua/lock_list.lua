-- Lists the locks of one shard by the end of their lease, without SCAN or KEYS.
-- KEYS[1] -> the shard's index
-- ARGV[1] -> the most to return
-- ARGV[2] -> only after this end (milliseconds) ...
-- ARGV[3] -> ... and this resource
-- ARGV[4] -> what a lock's key starts with, before the resource
-- ARGV[5] -> what a queue's key starts with
-- returns a flat list, eight per lock: resource, end, fence, since, remaining, holder (JSON), waiting, grant
-- The keys are built from ARGV: all have the hash tag of KEYS[1].
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local limit = tonumber(ARGV[1])
local after = tonumber(ARGV[2])
local found = {}
local offset = 0
local from = string.format('%.0f', math.max(after, now + 1))
while #found < limit * 8 do
  local entries = redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES', 'LIMIT', offset, limit)
  if #entries == 0 then
    break
  end
  offset = offset + limit
  for i = 1, #entries, 2 do
    local resource, till = entries[i], tonumber(entries[i + 1])
    if (till > after or resource > ARGV[3]) and #found < limit * 8 then
      local v = redis.call('HMGET', ARGV[4] .. resource, 'fence', 'since', 'until', 'holder', 'grant')
      if v[1] and tonumber(v[3]) > now then
        for _, field in ipairs({resource, string.format('%.0f', till), v[1], v[2],
          string.format('%.0f', tonumber(v[3]) - now), v[4], tostring(redis.call('ZCARD', ARGV[5] .. resource)), v[5]}) do
          table.insert(found, field)
        end
      end
    end
  end
end
return found
