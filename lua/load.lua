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
--       10 epoch   11 number of buckets, 0 for none   12 unit price in points, 0 for none
-- Publishes on notices, if it has loaded, that the product is reopened.
-- Returns  1 loaded   0 was loaded already, nothing changed   -1 out of date, nothing changed: read MySQL again
local stock_key, sale_key = unpack(KEYS)
local units, version, price, currency, starts_at, ends_at, limit, state, revision, epoch, buckets = unpack(ARGV)
local points_price = ARGV[12]

if redis.call('EXISTS', stock_key) == 1 then
  return 0
end
local known = redis.call('HMGET', sale_key, SEEN, REVISION, EPOCH)
local seen, known_revision, known_epoch = tonumber(known[1] or 0), tonumber(known[2] or 0), known[3]
if tonumber(version) < seen or tonumber(revision) < known_revision or epoch ~= known_epoch then
  return -1
end
redis.call('SET', stock_key, units)
redis.call('HSET', sale_key, VERSION, version, BORN, version, SEEN, version, PRICE, price, CURRENCY, currency,
  STARTS_AT, starts_at, ENDS_AT, ends_at, LIMIT, limit, STATE, state, REVISION, revision, BUCKETS, buckets,
  POINTS_PRICE, points_price)
count_change(sale_key)
reopened(stock_key)
return 1
