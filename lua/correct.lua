#!lua flags=allow-oom
-- Sets the units available to what they must be by what MySQL says, if nothing has moved since the caller
-- looked at Redis, before it read MySQL. From then on the loaded stock is the one of that version: an order
-- that was decided by it and has no reservation is not taken out again.
--
-- KEYS  1 stock:{p}   2 sale:{p}
-- ARGV  1 epoch and 2 number of changes, as the caller has seen them   3 units available   4 version in MySQL
-- Publishes on notices, if there are more units than before, that the product is reopened.
-- Returns  1 set   0 something has moved, nothing changed: look again
local stock_key, sale_key = unpack(KEYS)
local epoch, changes, available, version = unpack(ARGV)

local before = redis.call('GET', stock_key)
local seen = tonumber(redis.call('HGET', sale_key, SEEN) or 0)
if not before or not is_still(sale_key, epoch, changes) then
  return 0
end
redis.call('SET', stock_key, available)
redis.call('HSET', sale_key, VERSION, version)
count_change(sale_key)
if tonumber(version) > seen then
  redis.call('HSET', sale_key, SEEN, version)
end
if tonumber(available) > tonumber(before) then
  reopened(stock_key)
end
return 1
