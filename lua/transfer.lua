-- Takes units out of a bucket that are to go to another, or out of a product that is to have fewer. They stay in
-- lent:{p}, under the name of their transfer, until MySQL has decided it: then settle.lua drops them, or gives them back.
--
-- KEYS  1 stock:{p}   2 lent:{p}   3 sale:{p}
-- ARGV  1 name of the transfer   2 units wanted   3 'whole' to take all of them or none
-- Returns  units taken, fewer than wanted if there are fewer; of a transfer that has some already, those
--         0 there are none to be had, nothing changed   -1 it is not loaded, nothing changed
--         -7 the sale is paused for a moment, nothing changed
local stock_key, lent_key, sale_key = unpack(KEYS)
local name, wanted, all_or_none = ARGV[1], tonumber(ARGV[2]), ARGV[3] == WHOLE

local units = tonumber(redis.call('HGET', lent_key, name) or 0)
if units > 0 then
  return units
end
if tonumber(redis.call('HGET', sale_key, PAUSED_UNTIL) or 0) > milliseconds() then
  return PAUSED
end
local available = redis.call('GET', stock_key)
if not available then
  return -1
end
units = math.min(tonumber(available), wanted)
if units <= 0 or all_or_none and units < wanted then
  return 0
end
redis.call('DECRBY', stock_key, units)
redis.call('HSET', lent_key, name, units)
count_change(sale_key)
return units
