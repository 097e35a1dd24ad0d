#!lua flags=allow-oom
-- Gives back the units of orders that the queue refused, as if they had never been reserved.
--
-- Only an order that is still in the outbox and unclaimed can be cancelled: one that somebody claimed
-- may be on its way to the queue, and one that has left the outbox is there already.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 outbox:{p}   5 sale:{p}
--       6.. idem:{p}:<user>:<key> of each order that has an idempotency key, in the order of ARGV
-- ARGV  for each order: order id, user id, 1 if it has an idempotency key, else 0
-- Publishes on notices, if units are available again, that the product is reopened.
-- Returns for each order  1 cancelled   0 there is no such reservation   -1 too late, nothing changed
local stock_key, reserved_key, bought_key, outbox_key, sale_key = unpack(KEYS, 1, 5)

local reply, k, given = {}, 5, false
for i = 1, #ARGV / 3 do
  local id, user, has_idem = unpack(ARGV, i * 3 - 2, i * 3)
  local idem = nil
  if has_idem == '1' then
    k = k + 1
    idem = KEYS[k]
  end
  local units = redis.call('HGET', reserved_key, id)
  local entry = redis.call('HGET', outbox_key, id)

  if not units then
    reply[i] = 0
  elseif not entry or string.match(entry, '^%d+ (%d+)') ~= '0' then
    reply[i] = -1
  else
    reply[i] = 1
    local record = idem and redis.call('GET', idem)
    if redis.call('EXISTS', stock_key) == 1 then
      redis.call('INCRBY', stock_key, units)
      given = true
    end
    redis.call('HDEL', reserved_key, id)
    redis.call('HDEL', outbox_key, id)
    if redis.call('HINCRBY', bought_key, user, -units) <= 0 then
      redis.call('HDEL', bought_key, user)
    end
    if record and string.sub(record, 1, #id) == id then
      redis.call('DEL', idem)
    end
  end
end

if given then
  count_change(sale_key)
  reopened(stock_key)
end
return reply
