-- Keeps a note with the grant; the first one stays.
-- ARGV[3] -> grant id
-- ARGV[4] -> the note
-- returns the reply, with the note that stands; code 1: held by this grant, 0: not
local lock = current()
if not lock or lock.grant ~= ARGV[3] then
  return reply(0, lock)
end
redis.call('HSETNX', KEYS[1], 'note', ARGV[4])
return reply(1, current())
