-- What each script begins with.

-- The outcomes of a reservation. Internal/stock has the same numbers.
local RESERVED, REPLAYED, SOLD_OUT, LIMIT_EXCEEDED, NOT_STARTED, ENDED = 1, 2, -1, -2, -3, -4
local IDEMPOTENCY_MISMATCH, NOT_ON_SALE, PAUSED, OTHER_BUCKETS, NO_POINTS_PRICE = -5, -6, -7, -8, -9

-- The fields of sale:{p}. Internal/stock has the same names of those that it uses.
local PRICE, CURRENCY, STARTS_AT, ENDS_AT, LIMIT = 'price', 'currency', 'starts_at', 'ends_at', 'limit'
local POINTS_PRICE = 'points_price'
local STATE, BUCKETS, PAUSED_UNTIL, REVISION = 'state', 'buckets', 'paused_until', 'revision'
local VERSION, BORN, SEEN, SEEN_BY, LOST_COMMITS = 'version', 'born', 'seen', 'seen_by', 'lost_commits'
local EPOCH, CHANGES, COUNTED = 'epoch', 'changes', 'counted'

-- Other words that Go uses as well: a state of a sale, the channel of notices, what is before the id of a
-- restock and of an order that was returned in settled:{p}, and arguments of settle.lua and transfer.lua.
local OFF_SALE, NOTICES, SPARE, WHOLE = 'off_sale', 'notices', 'spare', 'whole'
local RESTOCK_MARK, RETURN_MARK = 'restock:', 'return:'

-- What is kept of an order that is reserved: 'units user unit_price reserved_at batch key', reserved_at in ms, key as the
-- caller has written it, or nothing. Batch names the entry of the outbox in which the order was put when it was reserved.
-- A unit_price in points, which are taken when the order is decided, has the letter of POINTS behind it.
-- Programs before message version 2 kept nothing but the units.
local POINTS = 'p'
local RESERVATION = '^(%d+) (%d+) (%d+p?) (%d+) (%S+) ?(.*)$'

-- The field of the outbox that has an order as long as the queue has not acknowledged it. Programs before message version 2
-- had a field for each order, of its id.
local function batch_of(id, reservation)
  local _, _, _, _, batch = string.match(reservation, RESERVATION)
  return batch or id
end

-- An entry of the outbox is 'reserved_at claimed_at orders', times in ms, claimed_at 0 if it is unclaimed, and the orders'
-- ids with a space between two. An order is in the outbox as long as it is reserved, and the entry of its batch is there.
local function claimed(entry, now_text)
  local reserved_at, rest = string.match(entry, '^(%d+) %d+ (.*)$')
  return reserved_at .. ' ' .. now_text .. ' ' .. rest
end

local function is_claimed(entry)
  return string.match(entry, '^%d+ (%d+)') ~= '0'
end

-- The time in milliseconds, by the clock of Redis.
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A time as it is kept: a number of 13 digits would be written with an exponent.
local function text_of(time)
  return string.format('%.0f', time)
end

-- Counts a change of what Redis holds of a product, so that who has read it in several calls sees that it has moved.
local function count_change(sale_key)
  redis.call('HINCRBY', sale_key, CHANGES, 1)
end

-- Reports whether nothing has moved since the caller has read the epoch and the number of changes.
local function is_still(sale_key, epoch, changes)
  local known = redis.call('HMGET', sale_key, EPOCH, CHANGES)
  return known[1] == epoch and known[2] == changes
end

-- Counts units for a buyer. For a moment he may have less than none: his units can be returned before it is settled that
-- he has them. So what he has goes only when it is none.
local function count_bought(bought_key, user, units)
  if redis.call('HINCRBY', bought_key, user, units) == 0 then
    redis.call('HDEL', bought_key, user)
  end
end

-- The fields of room:{p}, and words in it. Internal/room has the same names of those that it uses.
local JOINED, EARLY, FRONT, ROOM_CLOSED = 'joined', 'early', 'front', 'closed'
local RATE, OVERBOOK, GRACE, PASS_TTL = 'rate', 'overbook', 'grace', 'pass_ttl'
local COMMITMENT, SEED, MARKS, LEADER, LEADS_UNTIL = 'commitment', 'seed', 'marks', 'leader', 'leads_until'
local LOST_TURNS, LOST_UNTIL = 'lost_turns', 'lost_until'
local ADMITTED, ENTERED, NO_SHOWS, UNUSED = 'admitted', 'entered', 'no_shows', 'unused'

-- What is before a place that was called, and before a user who has entered, in turns:{p}; and how many turns end in a call.
local CALLED, HOLDER, TURNS_AT_ONCE = 'c', 'u', 1000

-- How a room stands now, or nothing if there is none. Who looks first after the start fixes how many have come before it.
local function room_now(room_key, sale_key)
  local room = redis.call('HMGET', room_key, STATE, JOINED, EARLY, FRONT)
  if not room[1] then
    return nil
  end
  local now, joined = milliseconds(), tonumber(room[2] or 0)
  local early = room[3]
  if not early then
    early = -1
    if now >= tonumber(redis.call('HGET', sale_key, STARTS_AT) or 0) then
      early = joined
      redis.call('HSET', room_key, EARLY, text_of(early))
    end
  end
  return {now = now, state = room[1], joined = joined, early = tonumber(early), front = tonumber(room[4] or 0)}
end

-- Tells all edges that more may be had of a product than before. The key is one of the product's.
local function reopened(key)
  redis.call('PUBLISH', NOTICES, '{"reopened":[' .. string.match(key, '{(.-)}') .. ']}')
end

