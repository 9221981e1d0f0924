-- Gives keys their whole quota back, and remembers when: what an instance finds missing then is not
-- put back.
--
-- KEYS -> what holds admissions, and after those as many markers as there are windows
-- ARGV -> the windows, in microseconds: so long each marker matters, and the length of a block
--   longer
--
-- Returns the server's time in microseconds.
local held = #KEYS - #ARGV
for i = 1, held do
  call('DEL', KEYS[i])
end
for i = 1, #ARGV do
  call('SET', KEYS[held + i], format('%.0f', time), 'PX', ceil(ARGV[i] / 1000) + 2000)
end
return time
