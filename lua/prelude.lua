-- What each script begins with.

-- The outcomes of a reservation. Internal/stock has the same numbers.
local RESERVED, REPLAYED, SOLD_OUT, LIMIT_EXCEEDED, NOT_STARTED, ENDED = 1, 2, -1, -2, -3, -4
local IDEMPOTENCY_MISMATCH, NOT_ON_SALE, PAUSED, OTHER_BUCKETS = -5, -6, -7, -8

-- The time in milliseconds, by the clock of Redis.
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A time as it is kept: a number of 13 digits would be written with an exponent.
local function text_of(time)
  return string.format('%.0f', time)
end

-- Tells all edges that more may be had of a product than before. The key is one of the product's.
local function reopened(key)
  redis.call('PUBLISH', 'notices', '{"reopened":[' .. string.match(key, '{(.-)}') .. ']}')
end

