#!lua flags=allow-oom
-- Adds units that MySQL has put on sale to those available, once per restock.
--
-- KEYS  1 stock:{p}   2 sale:{p}   3 settled:{p}
-- ARGV  1 units   2 version of the product after the restock's commit   3 id of the restock
-- Publishes on notices, if units were added, that the product is reopened.
-- Returns  1 added   0 nothing to do: added before, part of the loaded stock, or the product is not loaded
local stock = redis.call('EXISTS', KEYS[1])
local sale = redis.call('HMGET', KEYS[2], 'version', 'seen')
local version, mark = tonumber(ARGV[2]), 'restock:' .. ARGV[3]
local known = redis.call('SISMEMBER', KEYS[3], mark)
if version > tonumber(sale[2] or 0) then
  redis.call('HSET', KEYS[2], 'seen', ARGV[2])
end
if stock == 0 or known == 1 or version <= tonumber(sale[1] or 0) then
  return 0
end
redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'changes', 1)
redis.call('SADD', KEYS[3], mark)
reopened(KEYS[1])
return 1
