-- Keeps metadata with the grant; the first stays.
-- ARGV[1] -> grant id
-- ARGV[2] -> the metadata
-- returns the reply, with the metadata that stands; code 1: held by this grant, 0: not
local lock = current()
if not lock or id_of(lock.grant) ~= ARGV[1] then
  return reply(0, lock, 0)
end
if lock.flag ~= '*' then
  lock.flag = '*'
  redis.call('SET', metadata(ARGV[1]), ARGV[2], 'PX', math.max(1, redis.call('PTTL', KEYS[1])))
  redis.call('SET', KEYS[1], '*' .. lock.grant, 'KEEPTTL')
end
return reply(1, lock, 0)
