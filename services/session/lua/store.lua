-- Keeps a copy of a session unless one of a newer version is there: a fill that
-- comes late must not bring old values back.
-- KEYS[1] -> session:<token hash>
-- ARGV[1] -> version of the session
-- ARGV[2] -> the copy, "<version> <document>"
-- ARGV[3] -> time to live (milliseconds)
-- returns 1: kept, 0: a newer one is there
local there = redis.call('GET', KEYS[1])
local version = there and tonumber(string.match(there, '^(%d+) '))
if version and version > tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
