-- Answers how the lock stands, and who waits for it. Waiters whose instance has been silent for 10 s
-- are dropped, as the next grant would do.
-- ARGV[1] -> the most waiters to return
-- returns the reply of status, and in its tenth field two texts per waiter, first come first: its
--   arrival (microseconds), and its grant's text without fence and since
local queue, at = {}, 0
while at < tonumber(ARGV[1]) do
  local entry = redis.call('ZRANGE', KEYS[2], at, at, 'WITHSCORES')
  local id = entry[1]
  if not id then
    break
  end
  local text = redis.call('HGET', waiters(), id)
  local request = text and cjson.decode(text)
  if request and now - tonumber(redis.call('ZSCORE', prefix .. 'instances', request.instance) or '0') <= 10000 then
    table.insert(queue, string.format('%d', tonumber(entry[2])))
    table.insert(queue, request.grant)
    at = at + 1
  else
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', waiters(), id)
  end
end
local lock = current()
local answer = standing(lock and 1 or 0, lock, redis.call('ZCARD', KEYS[2]))
answer[10] = queue
return answer
