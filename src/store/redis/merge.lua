-- Writes what one replica knows of a session, unless what is there already is right.
--
-- KEYS[1]  the session's key
-- ARGV[1]  mode: "set" whoever was there; "new" unless anybody was there; "move" if it is still at
--          ARGV[4]; "merge" if it is the later word
-- ARGV[2]  the value, JSON
-- ARGV[3]  its life in milliseconds
-- ARGV[4]  the home that it left
-- ARGV[5]  the channel of announcements
-- ARGV[6]  what stands before the value in an announcement
-- ARGV[7]  "1" to announce it even where nothing was there
--
-- Answers "" when the value stands, and otherwise the one that is right.
local mode, value = ARGV[1], ARGV[2]
local new = cjson.decode(value)
local old = redis.pcall('GETRANGE', KEYS[1], 0, 1024)
local was = nil
if type(old) == 'string' and #old > 0 and #old <= 1024 then
  local good, read = pcall(cjson.decode, old)
  if good and type(read) == 'table' then was = read end
end

local function number(n) if type(n) == 'number' then return n else return 0 end end
local function since(v) return number(v.placed or v.at) end

-- Whether one is the next step of the other. Clocks tell the order of two moves roughly; that one began
-- where the other had ended, exactly.
local function follows(one, other)
  return one.from ~= nil and one.from == other.home and since(one) + 1000 >= since(other)
end

local wins = true
local agreed = was ~= nil and was.home == new.home and was.renamed == new.renamed and was.ended == new.ended
if was and mode ~= 'set' then
  if agreed then
    -- Whoever used it last prolongs its life. Not by since when it lives there: clocks differ.
    wins = number(new.seen) >= number(was.seen) or (was.unlearned and not new.unlearned)
  elseif mode == 'new' then
    wins = false
  elseif mode == 'move' then
    wins = was.home == ARGV[4]
  elseif was.home and new.home and (was.unlearned or new.unlearned) then
    -- An id that an application set is worth more than one that it only accepted; of two of the
    -- latter, the first one stays.
    wins = not new.unlearned
  elseif follows(new, was) ~= follows(was, new) then
    wins = follows(new, was)
  else
    wins = since(new) > since(was)
  end
end
if not wins then
  if agreed then return '' end
  return old
end
if agreed and was.home then
  -- What is known better there stays: that an application set the id, and the later since.
  if new.unlearned and not was.unlearned then
    value = value:gsub(',"unlearned":true', '')
  end
  if was.scope and not new.scope then
    value = value:gsub('}$', (',"scope":%.0f}'):format(number(was.scope)))
  end
  if since(was) > since(new) then
    value = value:gsub('"placed":%d+', ('"placed":%.0f'):format(since(was)), 1)
  end
end
redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
if not agreed and (was or ARGV[7] == '1') then
  redis.call('PUBLISH', ARGV[5], ARGV[6] .. value .. '}')
end
return ''
