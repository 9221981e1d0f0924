-- Answers when the lease of a grant ended by itself.
-- ARGV[1] -> the grant's id
-- returns the time (milliseconds), or '' if the lease did not end by itself, or too long ago
local lock = current()
if lock and id_of(lock.grant) == ARGV[1] then
  return ''
end
expire(-1, ARGV[1])
return string.sub(redis.call('GET', expired(ARGV[1])) or '', 44)
