-- Reserves the units of an order again that has failed and is to be decided anew. Its sale's window was
-- judged when it was accepted, and its price is the one of that time; limit and stock are those of now.
--
-- The order is in the outbox afterwards, claimed for the caller to send, also if it was reserved already. There it stays
-- until it is decided, so that nobody settles it by its old decision (settle.lua).
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 sale:{p}   5 outbox:{p}
-- ARGV  1 order id   2 user id   3 quantity   4 unit price as it is kept   5 idempotency key as it is kept, or ''   6 name of the entry
--       in the outbox, which nothing has yet
-- Returns  1 reserved   2 is reserved already   0 the product is not loaded
--         -1 sold out   -2 limit exceeded   -7 the sale is paused for a moment
local stock_key, reserved_key, bought_key, sale_key, outbox_key = unpack(KEYS)
local id, user, quantity_text, unit_price, key, batch = unpack(ARGV)

local stock = tonumber(redis.call('GET', stock_key) or nil)
if not stock then
  return 0
end
local now = milliseconds()
local now_text = text_of(now)
local reservation = table.concat({quantity_text, user, unit_price, now_text, batch, key}, ' ')
local entry = now_text .. ' ' .. now_text .. ' ' .. id
local held = redis.call('HGET', reserved_key, id)
if held then
  count_change(sale_key)
  local _, _, _, reserved_at = string.match(held, RESERVATION)
  if reserved_at then
    reservation = table.concat({string.match(held, '^%d+'), user, unit_price, reserved_at, batch, key}, ' ')
  end
  redis.call('HSET', reserved_key, id, reservation)
  redis.call('HSET', outbox_key, batch, entry)
  return REPLAYED
end

local sale = redis.call('HMGET', sale_key, LIMIT, PAUSED_UNTIL)
local limit, paused_until, quantity = tonumber(sale[1]), tonumber(sale[2] or 0), tonumber(quantity_text)
if paused_until > now then
  return PAUSED
end
if limit > 0 and tonumber(redis.call('HGET', bought_key, user) or 0) + quantity > limit then
  return LIMIT_EXCEEDED
end
if stock < quantity then
  return SOLD_OUT
end

redis.call('DECRBY', stock_key, quantity)
count_change(sale_key)
redis.call('HSET', reserved_key, id, reservation)
count_bought(bought_key, user, quantity)
redis.call('HSET', outbox_key, batch, entry)
return RESERVED
