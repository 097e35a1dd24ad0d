-- Takes units out of a bucket that are to go to another, or out of a product that is to have fewer. They are lent, under
-- the name of their move, until MySQL has decided it: then settle.lua drops them, or gives them back.
--
-- KEYS  1 stock:{p}   2 lent:{p}   3 sale:{p}
-- ARGV  1 name of the move   2 units wanted   3 'whole' to lend all of them or none
-- Returns  units lent, fewer than wanted if there are fewer; of a move that has some already, those
--         0 there is nothing to lend, nothing changed   -1 it is not loaded, nothing changed
--         -7 the sale is paused for a moment, nothing changed
local lent = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if lent > 0 then
  return lent
end
local now = milliseconds()
if tonumber(redis.call('HGET', KEYS[3], 'paused_until') or 0) > now then
  return PAUSED
end
local available = redis.call('GET', KEYS[1])
if not available then
  return -1
end
lent = math.min(tonumber(available), tonumber(ARGV[2]))
if lent <= 0 or ARGV[3] == 'whole' and lent < tonumber(ARGV[2]) then
  return 0
end
redis.call('DECRBY', KEYS[1], lent)
redis.call('HSET', KEYS[2], ARGV[1], lent)
redis.call('HINCRBY', KEYS[3], 'changes', 1)
return lent
