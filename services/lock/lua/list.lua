-- Lists the locks of one shard by the end of their lease, without SCAN or KEYS.
-- ARGV[1] -> the most to return
-- ARGV[2] -> only after this end (milliseconds) ...
-- ARGV[3] -> ... and this fence
-- returns a flat list, four per lock: grant, end, time left, waiting. KEYS[1] and KEYS[2] are
--   set to each
local limit, after = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {}
local offset = 0
local from = string.format('%d', math.max(after, now + 1))
while #found < limit * 4 do
  local entries = redis.call('ZRANGEBYSCORE', KEYS[3], from, '+inf', 'WITHSCORES', 'LIMIT', offset, limit)
  if #entries == 0 then
    break
  end
  offset = offset + limit
  for i = 1, #entries, 2 do
    local grant, till = entries[i], tonumber(entries[i + 1])
    local beyond = till > after or tonumber(string.sub(grant, 1, 16)) > tonumber(ARGV[3])
    if beyond and #found < limit * 4 and stands(grant) then
      table.insert(found, grant)
      table.insert(found, till)
      table.insert(found, till - now)
      table.insert(found, redis.call('ZCARD', KEYS[2]))
    end
  end
end
return found
