#!lua flags=allow-oom
-- Brings a change of a product's settings from MySQL to Redis. Orders that are reserved keep the price
-- that they were promised, since it is in the outbox and in their idempotency record.
--
-- Of two changes the one with the newer revision holds, whichever comes first. If the product is not
-- loaded, the revision is noted, so that a row which was read before the change is not loaded any more.
--
-- KEYS  1 stock:{p}   2 sale:{p}
-- ARGV  1 revision of the product's row in MySQL   2 unit price in minor units   3 currency
--       4 start of the sale, ms since the epoch, 0 for none   5 end, likewise
--       6 limit of units per user, 0 for none   7 on_sale or off_sale   8 number of buckets, 0 for none
--       9 unit price in points, 0 for none
-- Publishes on notices that the product is reopened, also when a change is repeated.
-- Returns  1 the settings hold from now on   0 the product is not loaded, the revision is noted
--         -1 a newer change was here before, nothing changed
local stock_key, sale_key = unpack(KEYS)
local revision, price, currency, starts_at, ends_at, limit, state, buckets, points_price = unpack(ARGV)

local known = tonumber(redis.call('HGET', sale_key, REVISION) or 0)
if tonumber(revision) < known then
  return -1
end
local loaded = redis.call('EXISTS', stock_key)
if loaded == 1 then
  redis.call('HSET', sale_key, REVISION, revision, PRICE, price, CURRENCY, currency, STARTS_AT, starts_at,
    ENDS_AT, ends_at, LIMIT, limit, STATE, state, BUCKETS, buckets, POINTS_PRICE, points_price)
else
  redis.call('HSET', sale_key, REVISION, revision)
end
reopened(stock_key)
return loaded
