-- Reserves units for many orders of one product. Each order gets everything or nothing: its units
-- move from available to reserved, its buyer's units are counted, and it is written to the outbox,
-- from where it reaches the queue even if its edge dies. All reads come before the first write.
--
-- Within a call an order sees the orders before it. An order that is too large for what is left does
-- not stop a smaller one behind it.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 sale:{p}   5 outbox:{p}
--       6.. idem:{p}:<user>:<key> of each order that has an idempotency key, in the order of ARGV
-- ARGV  1 lifetime of an idempotency key in seconds   2 number of buckets by which the caller goes, 0 for none
--       then for each order: order id, user id, quantity, idempotency key or ''
-- Returns  {} if the product is not loaded, else
--       {unit price, currency, now in ms, starts_at, ends_at, limit, state, units available after the call,
--       number of buckets, then for each order one of
--         1                                     reserved
--         {order id, quantity, unit price, reserved at in ms, unsent}
--                                               the order that was reserved before under this order id
--                                               or idempotency key; unsent is 1 if it is still in the
--                                               outbox, where it is then claimed for the caller to send,
--                                               unless this call has put it there
--         -1 sold out   -2 limit exceeded   -3 sale not started   -4 sale ended
--         -5 the idempotency key was used with another quantity   -6 not on sale
--         -7 the sale is paused for a moment   -8 the product has another number of buckets}
--
-- An order that was reserved before is found whatever the settings are by now, and at the price of that
-- time. Only of one that is found by its order id alone, and is no longer in the outbox, Redis knows
-- neither price nor time: it gets those of now, and whoever has such an order knows better.
--
-- An outbox entry is 'reserved_at claimed_at user quantity unit_price key', times in ms, claimed_at 0
-- if unclaimed. An idempotency record is 'order_id quantity unit_price reserved_at'; the product is in
-- its key, so that the quantity is all that is left of the parameters to compare.
local stock_key, reserved_key, bought_key, sale_key, outbox_key = unpack(KEYS, 1, 5)
local idempotency_lifetime, callers_buckets = ARGV[1], tonumber(ARGV[2])

local stock = tonumber(redis.call('GET', stock_key) or nil)
if not stock then
  return {}
end

-- Quantities stay texts where they are only handed on.
local n = (#ARGV - 2) / 4
local ids, users, quantities, keys = {}, {}, {}, {}
for i = 1, n do
  ids[i], users[i], quantities[i], keys[i] = unpack(ARGV, i * 4 - 1, i * 4 + 2)
end

local sale = redis.call('HMGET', sale_key, PRICE, CURRENCY, STARTS_AT, ENDS_AT, LIMIT, STATE, PAUSED_UNTIL, BUCKETS)
local price, currency, state = sale[1], sale[2], sale[6]
local starts_at, ends_at, limit = tonumber(sale[3]), tonumber(sale[4]), tonumber(sale[5])
local paused_until, buckets = tonumber(sale[7] or 0), tonumber(sale[8] or 0)
local now = milliseconds()
local now_text = text_of(now)

local held = redis.call('HMGET', reserved_key, unpack(ids))
local counts = {}
if limit > 0 then
  local read = redis.call('HMGET', bought_key, unpack(users))
  for i = 1, n do
    counts[users[i]] = tonumber(read[i] or 0)
  end
end
local idem_keys, records = {}, {}
if #KEYS > 5 then
  for i = 6, #KEYS do
    idem_keys[i - 5] = KEYS[i]
  end
  records = redis.call('MGET', unpack(idem_keys))
end

-- The order that stands under an id: what the outbox still says of it, or else what the caller knows.
local claims = {}
local function replay(id, quantity, unit_price, reserved_at)
  local entry = redis.call('HGET', outbox_key, id)
  if not entry then
    return {id, quantity, unit_price, reserved_at, 0}
  end
  local at, rest = string.match(entry, '^(%d+) %d+ (.*)$')
  claims[#claims + 1] = id
  claims[#claims + 1] = at .. ' ' .. now_text .. ' ' .. rest
  local unit = string.match(rest, '^%-?%d+ %d+ (%d+)')
  return {id, quantity, unit, at, 1}
end

local closed = nil
if buckets ~= callers_buckets then
  closed = OTHER_BUCKETS
elseif paused_until > now then
  closed = PAUSED
elseif state == OFF_SALE then
  closed = NOT_ON_SALE
elseif starts_at > 0 and now < starts_at then
  closed = NOT_STARTED
elseif ends_at > 0 and now >= ends_at then
  closed = ENDED
end

local left = 8 -- where the units that are left go
local reply = {price, currency, now, starts_at, ends_at, limit, state, 0, buckets}
local head = #reply
local taken, reserve, outbox, buyers, idem_set = 0, {}, {}, {}, {}
local here, here_idem = {}, {}
local k = 0
for i = 1, n do
  local id, user, quantity, key = ids[i], users[i], tonumber(quantities[i]), keys[i]
  local result, record, idem = nil, nil, nil
  if key ~= '' then
    k = k + 1
    idem = idem_keys[k]
    record = here_idem[idem] or records[k]
  end
  if record then
    local first, first_quantity, first_price, first_at = string.match(record, '^(%S+) (%d+) (%d+) (%d+)$')
    if tonumber(first_quantity) ~= quantity then
      result = IDEMPOTENCY_MISMATCH
    elseif here[first] then
      result = {first, first_quantity, first_price, first_at, 1}
    else
      result = replay(first, first_quantity, first_price, first_at)
    end
  elseif here[id] then
    result = {id, here[id], price, now_text, 1}
  elseif held[i] then
    result = replay(id, held[i], price, now_text)
  elseif closed then
    result = closed
  elseif limit > 0 and counts[user] + quantity > limit then
    result = LIMIT_EXCEEDED
  elseif stock - taken < quantity then
    result = SOLD_OUT
  else
    result = RESERVED
    taken = taken + quantity
    if limit > 0 then
      counts[user] = counts[user] + quantity
    end
    here[id] = quantities[i]
    reserve[#reserve + 1] = id
    reserve[#reserve + 1] = quantities[i]
    outbox[#outbox + 1] = id
    outbox[#outbox + 1] = now_text .. ' 0 ' .. user .. ' ' .. quantities[i] .. ' ' .. price .. ' ' .. key
    buyers[#buyers + 1] = i
    if idem then
      here_idem[idem] = id .. ' ' .. quantities[i] .. ' ' .. price .. ' ' .. now_text
      idem_set[#idem_set + 1] = idem
    end
  end
  reply[head + i] = result
end
reply[left] = stock - taken

if taken > 0 then
  redis.call('DECRBY', stock_key, taken)
  count_change(sale_key)
  redis.call('HSET', reserved_key, unpack(reserve))
  redis.call('HSET', outbox_key, unpack(outbox))
  for j = 1, #buyers do
    local i = buyers[j]
    redis.call('HINCRBY', bought_key, users[i], quantities[i])
  end
  for j = 1, #idem_set do
    redis.call('SET', idem_set[j], here_idem[idem_set[j]], 'EX', idempotency_lifetime)
  end
end
if #claims > 0 then
  redis.call('HSET', outbox_key, unpack(claims))
end
return reply
