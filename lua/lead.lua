-- Makes the caller the one who calls places for a while, unless another one is, and tells him all that he decides by. Turns
-- that nobody took in time end, and so do those whose pass is no longer good.
--
-- KEYS  1 room:{p}   2 turns:{p}   3 seen:{p}   4 sale:{p}
-- ARGV  1 name of the caller   2 for how many ms
-- Returns  {} if there is no room, {the leader} if it is another one, else {now in ms, state, how many joined before the start or -1, how
--       many have joined, the place up to which all were called, turns that are out, 1 if the room has its seed, rate per
--       second, overbook in thousandths, grace in ms, marks of the leader, then each place that was seen and when, in ms}
local room_key, turns_key, seen_key, sale_key = unpack(KEYS)
local caller, length = ARGV[1], tonumber(ARGV[2])

local room = room_now(room_key, sale_key)
if not room then
  return {}
end
local leader = redis.call('HMGET', room_key, LEADER, LEADS_UNTIL)
if leader[1] and leader[1] ~= caller and tonumber(leader[2]) > room.now then
  return {leader[1]}
end
redis.call('HSET', room_key, LEADER, caller, LEADS_UNTIL, text_of(room.now + length))

local now_text = text_of(room.now)
local over, no_shows = redis.call('ZRANGEBYSCORE', turns_key, '-inf', now_text, 'LIMIT', 0, TURNS_AT_ONCE), 0
for i = 1, #over do
  if string.sub(over[i], 1, 1) == CALLED then
    no_shows = no_shows + 1
  end
end
if #over > 0 then
  redis.call('ZREM', turns_key, unpack(over))
  redis.call('HINCRBY', room_key, NO_SHOWS, no_shows)
  redis.call('HINCRBY', room_key, UNUSED, #over - no_shows)
end

local more = redis.call('HMGET', room_key, SEED, RATE, OVERBOOK, GRACE, MARKS, LOST_TURNS, LOST_UNTIL)
local turns = redis.call('ZCARD', turns_key)
if more[6] and tonumber(more[7]) > room.now then
  turns = turns + tonumber(more[6])
end
local reply = {
  now_text, room.state, room.early, room.joined, room.front, turns, more[1] and 1 or 0,
  more[2] or '0', more[3] or '0', more[4] or '0', more[5] or '',
}
local seen = redis.call('HGETALL', seen_key)
for i = 1, #seen do
  reply[#reply + 1] = seen[i]
end
return reply
