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
local stock = tonumber(redis.call('GET', KEYS[1]) or nil)
if not stock then
  return {}
end

local n = (#ARGV - 2) / 4
local ids, users, idem_keys = {}, {}, {}
for i = 1, n do
  ids[i] = ARGV[i * 4 - 1]
  users[i] = ARGV[i * 4]
end
local sale = redis.call('HMGET', KEYS[4], 'price', 'currency', 'starts_at', 'ends_at', 'limit', 'state', 'paused_until',
  'buckets')
local price, limit = sale[1], tonumber(sale[5])
local starts_at, ends_at = tonumber(sale[3]), tonumber(sale[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)

local held = redis.call('HMGET', KEYS[2], unpack(ids))
local counts = {}
if limit > 0 then
  local read = redis.call('HMGET', KEYS[3], unpack(users))
  for i = 1, n do
    counts[users[i]] = tonumber(read[i] or 0)
  end
end
local records = {}
if #KEYS > 5 then
  for i = 6, #KEYS do
    idem_keys[i - 5] = KEYS[i]
  end
  records = redis.call('MGET', unpack(idem_keys))
end

-- The order that stands under an id: what the outbox still says of it, or else what the caller knows.
local claims = {}
local function replay(id, quantity, unit_price, reserved_at)
  local entry = redis.call('HGET', KEYS[5], id)
  if not entry then
    return {id, quantity, unit_price, reserved_at, 0}
  end
  local at, rest = string.match(entry, '^(%d+) %d+ (.*)$')
  claims[#claims + 1] = id
  claims[#claims + 1] = at .. ' ' .. now_text .. ' ' .. rest
  local unit = string.match(rest, '^%-?%d+ %d+ (%d+)')
  return {id, quantity, unit, at, 1}
end

local closed, buckets = nil, tonumber(sale[8] or 0)
if buckets ~= tonumber(ARGV[2]) then
  closed = -8
elseif tonumber(sale[7] or 0) > now then
  closed = -7
elseif sale[6] == 'off_sale' then
  closed = -6
elseif starts_at > 0 and now < starts_at then
  closed = -3
elseif ends_at > 0 and now >= ends_at then
  closed = -4
end

local reply = {price, sale[2], now, starts_at, ends_at, limit, sale[6], 0, buckets}
local taken, reserve, outbox, buyers, idem_set = 0, {}, {}, {}, {}
local here, here_idem = {}, {}
local k = 0
for i = 1, n do
  local id, user, quantity, key = ids[i], users[i], tonumber(ARGV[i * 4 + 1]), ARGV[i * 4 + 2]
  local result, record, idem = nil, nil, nil
  if key ~= '' then
    k = k + 1
    idem = idem_keys[k]
    record = here_idem[idem] or records[k]
  end
  if record then
    local first, first_quantity, first_price, first_at = string.match(record, '^(%S+) (%d+) (%d+) (%d+)$')
    if tonumber(first_quantity) ~= quantity then
      result = -5
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
    result = -2
  elseif stock - taken < quantity then
    result = -1
  else
    result = 1
    taken = taken + quantity
    if limit > 0 then
      counts[user] = counts[user] + quantity
    end
    here[id] = ARGV[i * 4 + 1]
    reserve[#reserve + 1] = id
    reserve[#reserve + 1] = ARGV[i * 4 + 1]
    outbox[#outbox + 1] = id
    outbox[#outbox + 1] = now_text .. ' 0 ' .. user .. ' ' .. ARGV[i * 4 + 1] .. ' ' .. price .. ' ' .. key
    buyers[#buyers + 1] = i
    if idem then
      here_idem[idem] = id .. ' ' .. ARGV[i * 4 + 1] .. ' ' .. price .. ' ' .. now_text
      idem_set[#idem_set + 1] = idem
    end
  end
  reply[9 + i] = result
end
reply[8] = stock - taken

if taken > 0 then
  redis.call('DECRBY', KEYS[1], taken)
  redis.call('HINCRBY', KEYS[4], 'changes', 1)
  redis.call('HSET', KEYS[2], unpack(reserve))
  redis.call('HSET', KEYS[5], unpack(outbox))
  for j = 1, #buyers do
    local i = buyers[j]
    redis.call('HINCRBY', KEYS[3], users[i], ARGV[i * 4 + 1])
  end
  for j = 1, #idem_set do
    redis.call('SET', idem_set[j], here_idem[idem_set[j]], 'EX', ARGV[1])
  end
end
if #claims > 0 then
  redis.call('HSET', KEYS[5], unpack(claims))
end
return reply
