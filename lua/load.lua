-- Brings a product to Redis, with the stock and the settings that MySQL has.
--
-- Stock is stored only if none is loaded, so that of many edges that load at once one wins, and only
-- if no settle or restock has shown a newer version of the product, since then the row that the
-- caller read is out of date and orders decided since would be counted twice. Nor is a row loaded that
-- is older than a change of the settings that configure.lua has noted.
--
-- Nor is it stored if Redis has lost its data since the caller began: the epoch of the product, a random
-- word that is made before MySQL is read, is then gone. Orders may have been decided in between of which
-- Redis knows nothing any more.
--
-- KEYS  1 stock:{p}   2 sale:{p}
-- ARGV  1 units in MySQL   2 version of the product's row in MySQL   3 unit price in minor units
--       4 currency   5 start of the sale, ms since the epoch, 0 for none   6 end, likewise
--       7 limit of units per user, 0 for none   8 on_sale or off_sale   9 revision of the row's settings
--       10 epoch   11 number of buckets, 0 for none
-- Publishes on notices, if it has loaded, that the product is reopened.
-- Returns  1 loaded   0 was loaded already, nothing changed   -1 out of date, nothing changed: read MySQL again
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local known = redis.call('HMGET', KEYS[2], 'seen', 'revision', 'epoch')
if tonumber(ARGV[2]) < tonumber(known[1] or 0) or tonumber(ARGV[9]) < tonumber(known[2] or 0)
  or known[3] ~= ARGV[10] then
  return -1
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], 'version', ARGV[2], 'seen', ARGV[2], 'price', ARGV[3], 'currency', ARGV[4],
  'starts_at', ARGV[5], 'ends_at', ARGV[6], 'limit', ARGV[7], 'state', ARGV[8], 'revision', ARGV[9],
  'buckets', ARGV[11])
redis.call('HINCRBY', KEYS[2], 'changes', 1)
reopened(KEYS[1])
return 1
