-- What the scripts share. Times are microseconds of the server's clock, which never goes back for a
-- key. sliding_log.lua and gcra.lua hold one algorithm each, step by step as in sliding_log.go and
-- gcra.go. take.lua, and the scripts that correct what a take did, have both before their own
-- text. Decisions are many, so what they pass on are values, not tables, and text becomes a number
-- by arithmetic.
local call, ceil, floor, max, min, format, match = redis.call, math.ceil, math.floor, math.max, math.min, string.format, string.match
local clock = call('TIME')
local time = clock[1] * 1000000 + clock[2]
