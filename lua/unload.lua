#!lua flags=allow-oom
-- Forgets a product whose sale has long ended, if nothing has moved since the caller looked and nothing is
-- on its way. What comes later loads it again.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 sale:{p}   5 outbox:{p}   6 settled:{p}
--       7 lent:{p}
-- ARGV  1 epoch and 2 number of changes, as the caller has seen them
-- Returns  1 forgotten   0 something has moved or is on its way, nothing changed
local stock_key, reserved_key, bought_key, sale_key, outbox_key, settled_key, lent_key = unpack(KEYS)
local epoch, changes = unpack(ARGV)

if not is_still(sale_key, epoch, changes) or redis.call('EXISTS', reserved_key, lent_key) > 0 then
  return 0
end
redis.call('UNLINK', stock_key, reserved_key, bought_key, sale_key, outbox_key, settled_key, lent_key)
return 1
