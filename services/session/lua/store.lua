-- Stores a copy of a session, unless Redis has one of a newer version: an instance
-- that read the row early and writes late must not bring old data back.
-- KEYS[1] -> session:<token hash>
-- ARGV[1] -> version of the session
-- ARGV[2] -> the copy, "<version> <sealed copy>"
-- ARGV[3] -> time to live (milliseconds)
-- returns 1: stored, 0: Redis has a newer one
local known = redis.call('GET', KEYS[1])
local version = known and tonumber(string.match(known, '^(%d+) '))
if version and version > tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
