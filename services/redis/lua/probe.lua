-- Runs every command that the scripts use: where this passes, they can run. It leaves no key
-- behind.
-- KEYS[1] -> a key that only probes use
-- ARGV[1] -> a channel without subscribers
-- Returns nil or, for the first command that failed, its name, a line feed and the error.
local key, failed = KEYS[1], nil

local function try(command, ...)
  if failed then return end
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply['err'] then failed = command .. '\n' .. reply['err'] end
end

try('SET', key, '1', 'PX', 60000)
try('EXISTS', key)
try('GET', key)
try('SETRANGE', key, 0, '2')
try('INCR', key)
try('PEXPIRE', key, 60000)
try('PEXPIREAT', key, 4102444800000)
try('PTTL', key)
try('DEL', key)
try('HSET', key, 'f', '1')
try('HSETNX', key, 'f', '1')
try('HEXISTS', key, 'f')
try('HGET', key, 'f')
try('HINCRBY', key, 'f', 1)
try('HDEL', key, 'f')
try('ZADD', key, 1, 'm')
try('ZCARD', key)
try('ZSCORE', key, 'm')
try('ZRANGE', key, 0, 0)
try('ZRANGEBYSCORE', key, 0, 1)
try('ZREMRANGEBYSCORE', key, 2, 3)
try('ZREM', key, 'm')
try('TIME')
try('PUBLISH', ARGV[1], '')
return failed
