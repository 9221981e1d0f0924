-- Keeps a note with the grant; the first one stays.
-- ARGV[4] -> grant id
-- ARGV[5] -> the note
-- returns the reply, with the note that stands; code 1: held by this grant, 0: not
local lock = current()
if not lock or lock.grant ~= ARGV[4] then
  return reply(0, lock, '', 0)
end
redis.call('HSETNX', KEYS[1], 'note', ARGV[5])
return reply(1, current(), '', 0)
