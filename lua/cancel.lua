#!lua flags=allow-oom
-- Gives back the units of orders that the queue refused, as if they had never been reserved.
--
-- Only an order that is still in the outbox and unclaimed can be cancelled: one that somebody claimed
-- may be on its way to the queue, and one that has left the outbox is there already.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 outbox:{p}   5 sale:{p}   6 idem:{p}:0   7 idem:{p}:1
--       8.. idem:{p}:<user>:<key> of each order that has an idempotency key, in the order of ARGV, if programs before
--       message version 2 are still to be thought of
-- ARGV  for each order: order id, user id, idempotency key as it is kept, or ''
-- Publishes on notices, if units are available again, that the product is reopened.
-- Returns for each order  1 cancelled   0 there is no such reservation   -1 too late, nothing changed
local stock_key, reserved_key, bought_key, outbox_key, sale_key = unpack(KEYS, 1, 5)

-- Forgets that a user's key stands for an order, if it is this one.
local function release(id, user, key, old_key)
  local field = user .. ':' .. key
  for k = 6, 7 do
    local record = redis.call('HGET', KEYS[k], field)
    if record and string.sub(record, 1, #id) == id then
      redis.call('HDEL', KEYS[k], field)
    end
  end
  local record = old_key and redis.call('GET', old_key)
  if record and string.sub(record, 1, #id) == id then
    redis.call('DEL', old_key)
  end
end

local reply, k, given = {}, 7, false
for i = 1, #ARGV / 3 do
  local id, user, key = unpack(ARGV, i * 3 - 2, i * 3)
  if key ~= '' then
    k = k + 1
  end
  local reservation = redis.call('HGET', reserved_key, id)
  local entry = reservation and redis.call('HGET', outbox_key, batch_of(id, reservation))

  if not reservation then
    reply[i] = 0
  elseif not entry or is_claimed(entry) then
    reply[i] = -1
  else
    reply[i] = 1
    local units = string.match(reservation, '^%d+')
    if redis.call('EXISTS', stock_key) == 1 then
      redis.call('INCRBY', stock_key, units)
      given = true
    end
    redis.call('HDEL', reserved_key, id)
    count_bought(bought_key, user, -units)
    if key ~= '' then
      release(id, user, key, KEYS[k])
    end
  end
end

if given then
  count_change(sale_key)
  reopened(stock_key)
end
return reply
