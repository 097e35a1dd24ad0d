-- Calls places: those who stand there may enter until their grace is over. All places between the old front and the new one
-- that are not called are passed over. It happens once, since it names the front that it goes on from.
--
-- KEYS  1 room:{p}   2 turns:{p}   3 seen:{p}
-- ARGV  1 name of the caller   2 front that he knows   3 new front   4 his marks   then the places that are called
-- Returns  1, or 0 if the caller does not lead or the front is another one
local room_key, turns_key, seen_key = unpack(KEYS)
local caller, front, new_front, marks = unpack(ARGV, 1, 4)
local HEAD = 4

local room = redis.call('HMGET', room_key, LEADER, FRONT, GRACE)
if room[1] ~= caller or (room[2] or '0') ~= front then
  return 0
end

local until_text = text_of(milliseconds() + tonumber(room[3]))
for i = HEAD + 1, #ARGV do
  redis.call('ZADD', turns_key, until_text, CALLED .. ARGV[i])
end
local passed = {}
local seen = new_front ~= front and redis.call('HKEYS', seen_key) or {}
for i = 1, #seen do
  if tonumber(seen[i]) < tonumber(new_front) then
    passed[#passed + 1] = seen[i]
  end
end
if #passed > 0 then
  redis.call('HDEL', seen_key, unpack(passed))
end
redis.call('HSET', room_key, FRONT, new_front, MARKS, marks)
redis.call('HINCRBY', room_key, ADMITTED, #ARGV - HEAD)
return 1
