
-- Decides several hits together: all of them count, or none does. The keys have one hash tag.
-- Keys, arguments and replies: hit.lua.
local hits, may_count, reply = {}, true, {}
for i = 1, #KEYS do
  local burst, limit, window, cost = numbers(i)
  hits[i] = {burst, limit, window, cost, look(i, burst, limit, window, cost)}
  may_count = may_count and (hits[i][5] == 1 or hits[i][5] == 0 and ARGV[8 * i - 2] == '1')
end
for i = 1, #KEYS do
  answer(i, reply, may_count, unpack(hits[i], 1, 10))
end
return reply
