-- Decides several hits together: all of them count, or none does. The keys have one hash tag.
-- Keys, arguments and replies: hit.lua.
local hits, may_count, reply = {}, true, {}
for i = 1, #KEYS do
  hits[i] = look(i)
  may_count = may_count and not hits[i].lost and (hits[i].passes or hits[i].shadow)
end
for i = 1, #KEYS do
  decide(i, hits[i], may_count, reply)
end
return reply
