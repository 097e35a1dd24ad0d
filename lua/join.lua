-- Gives users places in the line of a waiting room, or tells those that they have. A place is an index, which counts those
-- who join; the first to be called after the start notes how many have joined before it, and then the draw is fixed.
--
-- An index that a ticket of the user names stands if Redis has lost his. One whose turn is over is given up for the last one.
--
-- KEYS  1 room:{p}   2 places:{p}   3 sale:{p}
-- ARGV  for each user: user id, index that his ticket names, or '', index of his whose turn is over, or ''
-- Returns  {} if there is no room, else {now in ms, state, how many joined before the start or -1, how many have joined,
--       the place up to which all were called, then for each user his index, or -1 if he has none and the room is closed}
local room_key, places_key, sale_key = unpack(KEYS)

local room = room_now(room_key, sale_key)
if not room then
  return {}
end

local reply = {text_of(room.now), room.state, room.early, 0, room.front}
local joined, set = room.joined, {}
local given = {} -- by this call
for i = 1, #ARGV, 3 do
  local user, ticket, over = unpack(ARGV, i, i + 2)
  local index = given[user] or redis.call('HGET', places_key, user)
  if index == over then
    index = nil
  elseif not index and ticket ~= '' and ticket ~= over then
    index = ticket
    joined = math.max(joined, tonumber(ticket) + 1)
  end
  if not index and room.state ~= ROOM_CLOSED then
    index = text_of(joined)
    joined = joined + 1
  end
  if index and not given[user] then
    given[user] = index
    set[#set + 1] = user
    set[#set + 1] = index
  end
  reply[#reply + 1] = tonumber(index or -1)
end

if #set > 0 then
  redis.call('HSET', places_key, unpack(set))
end
if joined > room.joined then
  redis.call('HSET', room_key, JOINED, text_of(joined))
end
reply[4] = joined
return reply
