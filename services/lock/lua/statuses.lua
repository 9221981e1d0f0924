-- Answers how several locks of one shard stand.
-- ARGV -> their resources
-- returns for each the reply of status, or '' if it is free. KEYS[1] and KEYS[2] are set to each
local answers = {}
for i, resource in ipairs(ARGV) do
  look_at(resource)
  local lock = current()
  answers[i] = lock and standing(1, lock, redis.call('ZCARD', KEYS[2])) or ''
end
return answers
