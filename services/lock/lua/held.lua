-- Finds the locks of one shard that a holder has.
-- ARGV[1] -> the user's id
-- returns the ids of the grants
local mine, found = string.format('%d:%s', #ARGV[1], ARGV[1]), {}
for _, grant in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], string.format('(%d', now), '+inf')) do
  if string.find(grant, mine, 105, true) then -- quick, and right but for a resource with such a name
    local length, rest = string.match(string.sub(grant, 105), '^(%d+):(.*)$')
    if string.sub(rest, length + 1, length + #mine) == mine and stands(grant) then
      found[#found + 1] = id_of(grant)
    end
  end
end
return found
