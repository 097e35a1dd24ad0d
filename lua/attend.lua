-- What an edge does for all who poll it, some times a second: it says which of the places that are next were asked for, and
-- learns how the room stands.
--
-- KEYS  1 room:{p}   2 seen:{p}   3 sale:{p}
-- ARGV  places
-- Returns  {} if there is no room, else {now in ms, state, how many joined before the start or -1, how many have joined,
--       the place up to which all were called, commitment, seed or '', rate per second}
local room_key, seen_key, sale_key = unpack(KEYS)

local room = room_now(room_key, sale_key)
if not room then
  return {}
end

local seen, now_text = {}, text_of(room.now)
for i = 1, #ARGV do
  if tonumber(ARGV[i]) >= room.front then
    seen[#seen + 1] = ARGV[i]
    seen[#seen + 1] = now_text
  end
end
if #seen > 0 then
  redis.call('HSET', seen_key, unpack(seen))
end

local more = redis.call('HMGET', room_key, COMMITMENT, SEED, RATE)
return {now_text, room.state, room.early, room.joined, room.front, more[1] or '', more[2] or '', more[3] or '0'}
