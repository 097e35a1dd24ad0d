-- Reserves units for many orders of one product. Each order gets everything or nothing: its units
-- move from available to reserved, its buyer's units are counted, and all orders of the call are written to the outbox as
-- one entry, from where they reach the queue even if their edge dies. All reads come before the first write.
--
-- Within a call an order sees the orders before it. An order that is too large for what is left does
-- not stop a smaller one behind it.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 sale:{p}   5 outbox:{p}   6 idem:{p}:0   7 idem:{p}:1
--       8.. idem:{p}:<user>:<key> of each order that has an idempotency key, in the order of ARGV, if programs before
--       message version 2 are still to be thought of: they kept their idempotency records there
-- ARGV  1 lifetime of an idempotency key in ms   2 number of buckets by which the caller goes, 0 for none
--       3 name of the entry in the outbox, which nothing has yet
--       4 1 if all orders of the call are paid with points, else 0
--       then for each order: order id, user id, quantity, idempotency key as it is to be kept, or ''
-- Returns  {} if the product is not loaded, else
--       {unit price, currency, now in ms, starts_at, ends_at, limit, state, units available after the call,
--       number of buckets, then for each order one of
--         1                                     reserved
--         {order id, quantity, unit price, reserved at in ms, unsent, entry}
--                                               the order that was reserved before under this order id
--                                               or idempotency key; unsent is 1 if it is still in the
--                                               outbox, where its entry is then claimed for the caller to send
--                                               it, unless this call has put it there; the entry is named if
--                                               it was made for this order alone, and else ''
--         -1 sold out   -2 limit exceeded   -3 sale not started   -4 sale ended
--         -5 the idempotency key was used with another quantity, or to pay otherwise   -6 not on sale
--         -7 the sale is paused for a moment   -8 the product has another number of buckets
--         -9 the product has no price in points}
--
-- An order that was reserved before is found whatever the settings are by now, and at the price of that
-- time. In what is returned of such an order, and in what is kept of all, a price in points has the letter of POINTS
-- behind it.
--
-- An idempotency record is 'order_id quantity unit_price reserved_at'; the product is in its key, so that the quantity is
-- all that is left of the parameters to compare. Records of even periods, each as long as the lifetime of a key, are in the
-- hash idem:{p}:0, those of odd ones in idem:{p}:1. A hash dies when the period after its own is over, so that it has at
-- most one lifetime too much, and its next period begins with none.
local stock_key, reserved_key, bought_key, sale_key, outbox_key = unpack(KEYS, 1, 5)
local lifetime, callers_buckets, batch, by_points = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local HEAD = 4 -- arguments before those of the orders

local stock = tonumber(redis.call('GET', stock_key) or nil)
if not stock then
  return {}
end

-- Quantities stay texts where they are only handed on.
local n = (#ARGV - HEAD) / 4
local ids, users, quantities, keys = {}, {}, {}, {}
for i = 1, n do
  ids[i], users[i], quantities[i], keys[i] = unpack(ARGV, HEAD + i * 4 - 3, HEAD + i * 4)
end

local price_field, letter = PRICE, ''
if by_points then
  price_field, letter = POINTS_PRICE, POINTS
end
local sale = redis.call('HMGET', sale_key, price_field, CURRENCY, STARTS_AT, ENDS_AT, LIMIT, STATE, PAUSED_UNTIL, BUCKETS)
local price, currency, state = sale[1] or '0', sale[2], sale[6]
local starts_at, ends_at, limit = tonumber(sale[3]), tonumber(sale[4]), tonumber(sale[5])
local paused_until, buckets = tonumber(sale[7] or 0), tonumber(sale[8] or 0)
local now = milliseconds()
local now_text = text_of(now)

local held = redis.call('HMGET', reserved_key, unpack(ids))
local bought = redis.call('HMGET', bought_key, unpack(users))
local counts = {}
for i = 1, n do
  counts[users[i]] = tonumber(bought[i] or 0)
end

-- The idempotency records, by their fields.
local fields, field_of = {}, {}
for i = 1, n do
  if keys[i] ~= '' then
    field_of[i] = users[i] .. ':' .. keys[i]
    fields[#fields + 1] = field_of[i]
  end
end
local period = math.floor(now / lifetime)
local idem_key, idem_key_before = KEYS[6 + period % 2], KEYS[7 - period % 2]
local records, old_keys = {}, {}
if #fields > 0 then
  local found = redis.call('HMGET', idem_key, unpack(fields))
  local found_before = redis.call('HMGET', idem_key_before, unpack(fields))
  local found_old = #KEYS > 7 and redis.call('MGET', unpack(KEYS, 8)) or {}
  for k = 1, #fields do
    records[fields[k]] = found[k] or found_before[k] or found_old[k]
    old_keys[fields[k]] = KEYS[7 + k]
  end
end

-- The order that stands under an id: what its reservation still says of it, or else what the caller knows.
local claims = {}
local function replay(id, reservation, quantity, unit_price, reserved_at)
  if not reservation then
    return {id, quantity, unit_price, reserved_at, 0, ''}
  end
  local units, _, unit, at = string.match(reservation, RESERVATION)
  local name = batch_of(id, reservation)
  local entry, alone = redis.call('HGET', outbox_key, name), ''
  if entry then
    claims[#claims + 1] = name
    claims[#claims + 1] = claimed(entry, now_text)
    if name == id or string.match(entry, '^%d+ %d+ (.*)$') == id then
      alone = name
    end
  end
  return {id, units or string.match(reservation, '^%d+'), unit or unit_price, at or reserved_at, entry and 1 or 0, alone}
end

local closed = nil
if buckets ~= callers_buckets then
  closed = OTHER_BUCKETS
elseif paused_until > now then
  closed = PAUSED
elseif state == OFF_SALE then
  closed = NOT_ON_SALE
elseif by_points and price == '0' then
  closed = NO_POINTS_PRICE
elseif starts_at > 0 and now < starts_at then
  closed = NOT_STARTED
elseif ends_at > 0 and now >= ends_at then
  closed = ENDED
end

local left = 8 -- where the units that are left go
local reply = {price, currency, now, starts_at, ends_at, limit, state, 0, buckets}
local head = #reply
local taken, reserve, here_ids, buyers, idem_set = 0, {}, {}, {}, {}
local here = {} -- the units of those that this call has reserved
local kept_price = price .. letter
local common = ' ' .. kept_price .. ' ' .. now_text
for i = 1, n do
  local id, user, quantity, field = ids[i], users[i], tonumber(quantities[i]), field_of[i]
  local result = nil
  local first, first_quantity, first_price, first_at
  if field and records[field] then
    first, first_quantity, first_price, first_at = string.match(records[field], '^(%S+) (%d+) (%d+p?) (%d+)$')
    if now - tonumber(first_at) >= lifetime then
      first = nil
    end
  end
  if first then
    if tonumber(first_quantity) ~= quantity or (string.sub(first_price, -1) == POINTS) ~= by_points then
      result = IDEMPOTENCY_MISMATCH
    elseif here[first] then
      result = {first, first_quantity, first_price, first_at, 1, ''}
    else
      result = replay(first, redis.call('HGET', reserved_key, first), first_quantity, first_price, first_at)
    end
  elseif here[id] then
    result = {id, here[id], kept_price, now_text, 1, ''}
  elseif held[i] then
    result = replay(id, held[i], nil, kept_price, now_text)
  elseif closed then
    result = closed
  elseif limit > 0 and counts[user] + quantity > limit then
    result = LIMIT_EXCEEDED
  elseif stock - taken < quantity then
    result = SOLD_OUT
  else
    result = RESERVED
    taken = taken + quantity
    counts[user] = counts[user] + quantity
    here[id] = quantities[i]
    here_ids[#here_ids + 1] = id
    reserve[#reserve + 1] = id
    local reservation = quantities[i] .. ' ' .. user .. common .. ' ' .. batch
    if field then
      reservation = reservation .. ' ' .. keys[i]
      records[field] = id .. ' ' .. quantities[i] .. common
      idem_set[#idem_set + 1] = field
      idem_set[#idem_set + 1] = records[field]
    end
    reserve[#reserve + 1] = reservation
    buyers[#buyers + 1] = user
    buyers[#buyers + 1] = counts[user]
  end
  reply[head + i] = result
end
reply[left] = stock - taken

if taken > 0 then
  redis.call('DECRBY', stock_key, taken)
  count_change(sale_key)
  redis.call('HSET', reserved_key, unpack(reserve))
  redis.call('HSET', outbox_key, batch, now_text .. ' 0 ' .. table.concat(here_ids, ' '))
  redis.call('HSET', bought_key, unpack(buyers))
  if #idem_set > 0 then
    redis.call('HSET', idem_key, unpack(idem_set))
    redis.call('PEXPIREAT', idem_key, text_of((period + 2) * lifetime - 1))
    for j = 1, #idem_set, 2 do
      local old_key = old_keys[idem_set[j]]
      if old_key then
        redis.call('SET', old_key, idem_set[j + 1], 'PX', text_of(lifetime))
      end
    end
  end
end
if #claims > 0 then
  redis.call('HSET', outbox_key, unpack(claims))
end
return reply
