-- Decides about hits that have nothing to do with each other, each by itself. Keys, arguments and
-- replies: hit.lua. Here the first number is -1 if the hit could not be decided because its key
-- holds something else: that does not concern the others.
local reply = {}
local function alone(i)
  local burst, limit, window, cost = numbers(i)
  answer(i, reply, true, burst, limit, window, cost, look(i, burst, limit, window, cost))
end

for i = 1, #KEYS do
  local done, wrong = pcall(alone, i)
  if not done then
    wrong = type(wrong) == 'table' and wrong.err or wrong
    if not string.find(wrong, 'WRONGTYPE', 1, true) then
      return redis.error_reply(wrong) -- it would be the same for the others
    end
    local r = 6 * i - 5
    reply[r], reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4], reply[r + 5] = -1, 0, 0, 0, 0, 0
  end
end
return reply
