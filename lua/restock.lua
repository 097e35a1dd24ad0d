#!lua flags=allow-oom
-- Adds units that MySQL has put on sale to those available, once per restock.
--
-- KEYS  1 stock:{p}   2 sale:{p}   3 settled:{p}
-- ARGV  1 units   2 version of the product after the restock's commit   3 id of the restock
-- Publishes on notices, if units were added, that the product is reopened.
-- Returns  1 added   0 nothing to do: added before, part of the loaded stock, or the product is not loaded
local stock_key, sale_key, settled_key = unpack(KEYS)
local units, version, mark = ARGV[1], ARGV[2], RESTOCK_MARK .. ARGV[3]

local loaded = redis.call('EXISTS', stock_key) == 1
local sale = redis.call('HMGET', sale_key, VERSION, SEEN)
local loaded_version, seen = tonumber(sale[1] or 0), tonumber(sale[2] or 0)
local applied = redis.call('SISMEMBER', settled_key, mark) == 1
if tonumber(version) > seen then
  redis.call('HSET', sale_key, SEEN, version)
end
if not loaded or applied or tonumber(version) <= loaded_version then
  return 0
end
redis.call('INCRBY', stock_key, units)
count_change(sale_key)
redis.call('SADD', settled_key, mark)
reopened(stock_key)
return 1
