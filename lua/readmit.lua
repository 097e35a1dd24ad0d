-- Reserves the units of an order again that has failed and is to be decided anew. Its sale's window was
-- judged when it was accepted, and its price is the one of that time; limit and stock are those of now.
--
-- The order is in the outbox afterwards, claimed for the caller to send, also if it was reserved already. There it stays
-- until it is decided, so that nobody settles it by its old decision (settle.lua).
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 sale:{p}   5 outbox:{p}
-- ARGV  1 order id   2 user id   3 quantity   4 unit price   5 idempotency key or ''
-- Returns  1 reserved   2 is reserved already   0 the product is not loaded
--         -1 sold out   -2 limit exceeded   -7 the sale is paused for a moment
local stock = tonumber(redis.call('GET', KEYS[1]) or nil)
if not stock then
  return 0
end
local now = milliseconds()
local now_text = text_of(now)
local entry = now_text .. ' ' .. now_text .. ' ' .. ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[4], 'changes', 1)
  redis.call('HSET', KEYS[5], ARGV[1], entry)
  return REPLAYED
end
local sale = redis.call('HMGET', KEYS[4], 'limit', 'paused_until')
local limit, quantity = tonumber(sale[1]), tonumber(ARGV[3])
if tonumber(sale[2] or 0) > now then
  return PAUSED
end
if limit > 0 and tonumber(redis.call('HGET', KEYS[3], ARGV[2]) or 0) + quantity > limit then
  return LIMIT_EXCEEDED
end
if stock < quantity then
  return SOLD_OUT
end
redis.call('DECRBY', KEYS[1], quantity)
redis.call('HINCRBY', KEYS[4], 'changes', 1)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HINCRBY', KEYS[3], ARGV[2], quantity)
redis.call('HSET', KEYS[5], ARGV[1], entry)
return RESERVED
