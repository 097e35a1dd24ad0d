#!lua flags=allow-oom
-- Claims entries that have stayed in the outbox for too long, so that the caller may send their orders. An entry of which
-- no order is reserved any more is removed.
--
-- KEYS  1 outbox:{p}   2 reserved:{p}
-- ARGV  1 age in ms from which an entry may be claimed, and from which a claim may be taken over
--       2 number of orders from which no further entry is looked at
--       then names of entries
-- Returns  {number of entries looked at, then for each that is claimed now its name, the number of its orders, and of each
--       order its id and its reservation}. One that is gone, too young, or claimed by another not long ago is left out.
local outbox_key, reserved_key = unpack(KEYS)
local min_age, enough = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = milliseconds()
local oldest, now_text = now - min_age, text_of(now)

-- The orders of an entry that are in the outbox by it, as ids and reservations in turns.
local function orders_of(name, rest, reserved_at)
  local user, units, unit_price, key = string.match(rest, '^(%d+) (%d+) (%d+) (.*)$')
  if user then -- of a program before message version 2, by the order's id
    if redis.call('HEXISTS', reserved_key, name) == 0 then
      return {}
    end
    return {name, table.concat({units, user, unit_price, reserved_at, '-', key}, ' ')}
  end

  local ids, orders = {}, {}
  for id in string.gmatch(rest, '%S+') do
    ids[#ids + 1] = id
  end
  local reserved = redis.call('HMGET', reserved_key, unpack(ids))
  for i = 1, #ids do
    if reserved[i] and batch_of(ids[i], reserved[i]) == name then
      orders[#orders + 1] = ids[i]
      orders[#orders + 1] = reserved[i]
    end
  end
  return orders
end

local reply, claims, gone, found = {0}, {}, {}, 0
for i = 3, #ARGV do
  if found >= enough then
    break
  end
  local name = ARGV[i]
  local entry = redis.call('HGET', outbox_key, name)
  if entry then
    local reserved_at, claimed_at, rest = string.match(entry, '^(%d+) (%d+) (.*)$')
    if tonumber(reserved_at) <= oldest and tonumber(claimed_at) <= oldest then
      local orders = orders_of(name, rest, reserved_at)
      if #orders == 0 then
        gone[#gone + 1] = name
      else
        claims[#claims + 1] = name
        claims[#claims + 1] = claimed(entry, now_text)
        reply[#reply + 1] = name
        reply[#reply + 1] = #orders / 2
        for j = 1, #orders do
          reply[#reply + 1] = orders[j]
        end
        found = found + #orders / 2
      end
    end
  end
  reply[1] = reply[1] + 1
end

if #claims > 0 then
  redis.call('HSET', outbox_key, unpack(claims))
end
if #gone > 0 then
  redis.call('HDEL', outbox_key, unpack(gone))
end
return reply
