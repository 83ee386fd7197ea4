-- One page of the keys of sessions, and where each of them lives.
--
-- ARGV[1]  cursor
-- ARGV[2]  pattern
-- ARGV[3]  keys to look at
--
-- Answers the next cursor, and then key, home, key, home ...; aliases and ended ids are left out.
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local answer = { page[1] }
for _, key in ipairs(page[2]) do
  local value = redis.pcall('GETRANGE', key, 0, 1024)
  local home = type(value) == 'string' and string.match(value, '^{"home":"([^"\\]+)"')
  if home then
    answer[#answer + 1] = key
    answer[#answer + 1] = home
  end
end
return answer
