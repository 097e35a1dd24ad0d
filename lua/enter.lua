-- Lets users in whose turn it is: each turn is taken by the one whose place was called, once, and lasts as long as his pass.
-- Asking again tells the same.
--
-- KEYS  1 room:{p}   2 turns:{p}
-- ARGV  for each user: user id, his place
-- Returns  {now in ms, then for each user until when his pass is good, in ms, or 0 if his turn is over}
local room_key, turns_key = unpack(KEYS)

local now = milliseconds()
local ttl = tonumber(redis.call('HGET', room_key, PASS_TTL) or 0)
local reply = {text_of(now)}
for i = 1, #ARGV, 2 do
  local who, place = HOLDER .. ARGV[i], CALLED .. ARGV[i + 1]
  local until_at = tonumber(redis.call('ZSCORE', turns_key, who) or 0)
  if until_at <= now and tonumber(redis.call('ZSCORE', turns_key, place) or 0) > now then
    until_at = now + ttl
    redis.call('ZREM', turns_key, place)
    redis.call('ZADD', turns_key, text_of(until_at), who)
    redis.call('HINCRBY', room_key, ENTERED, 1)
  end
  reply[#reply + 1] = until_at > now and text_of(until_at) or '0'
end
return reply
