#!lua flags=allow-oom
-- Puts units back on sale that MySQL has taken back: of orders that were cancelled after they had been decided. An order's
-- units are returned once, however often they are brought.
--
-- The units are available again unless the stock is of a version that has them already. They are taken off what the buyer
-- has if they were taken after what was loaded; as a rule Redis counts them then, or will when the order is settled.
--
-- KEYS  1 stock:{p}   2 bought:{p}   3 sale:{p}   4 settled:{p}
-- ARGV  for each order: order id, user id, quantity, version of the product that took the units, version that returned them
-- Publishes on notices, if units are available again, that the product is reopened.
-- Returns  units that are available again
local stock_key, bought_key, sale_key, settled_key = unpack(KEYS)

local loaded = redis.call('EXISTS', stock_key) == 1
local sale = redis.call('HMGET', sale_key, VERSION, BORN, SEEN)
local version, seen = tonumber(sale[1] or 0), tonumber(sale[3] or 0)
local born = tonumber(sale[2]) or version -- a program of before has loaded it

local given, changed, newest, newest_text = 0, false, seen, nil
for i = 1, #ARGV, 5 do
  local id, user, quantity, taken_at, returned_at = unpack(ARGV, i, i + 4)
  if tonumber(returned_at) > newest then
    newest, newest_text = tonumber(returned_at), returned_at
  end
  if loaded and redis.call('SADD', settled_key, RETURN_MARK .. id) == 1 then
    changed = true
    if tonumber(returned_at) > version then
      given = given + quantity
    end
    if tonumber(taken_at) > born then
      count_bought(bought_key, user, -quantity)
    end
  end
end

if newest_text then
  redis.call('HSET', sale_key, SEEN, newest_text)
end
if changed then
  count_change(sale_key)
end
if given > 0 then
  redis.call('INCRBY', stock_key, given)
  reopened(stock_key)
end
return given
