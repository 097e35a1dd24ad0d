#!lua flags=allow-oom
-- Clears the reservations of orders that MySQL has decided. Settling an order again, as a decision
-- that is not fresh, changes nothing.
--
-- A failed order gives its units and its buyer's count back. A completed order's reservation is
-- dropped. If it was dropped by another than the worker that decided the order, the order's id is
-- left in settled:{p}, where that worker finds it when it comes late.
--
-- A fresh completed order that has no reservation was decided after Redis had lost it. Its units are
-- taken out of available only if its version is newer than the one of the stock, since otherwise the
-- stock is already without them. They count for its buyer if it is newer than what was loaded, since no
-- correction of the stock says what buyers have. A fresh decision may be settled as fresh once only: who does
-- not know whether a call was carried out repeats it with fresh = 0.
--
-- Who is not reserved is not in the outbox either, and is not sent from there any more; the entry itself goes when all of its
-- orders have been acknowledged, or when the relay finds none of them.
--
-- A transfer between buckets is settled in the donor like an order without a buyer: user 0, and lent:{p} for reserved:{p}.
--
-- Who settles what others have left behind may have read the decisions of orders that are being redriven: those are in the
-- outbox until they are decided anew. Such a caller says 'spare', and orders in the outbox are then passed over. They will
-- be sent from there, and settled by whoever receives them.
--
-- A version that was seen before, and that lies within those which this commit has made, or was made by another order, is
-- one that MySQL has lost since: it lost a commit, when it failed over, and now counts on from before it. That is noted,
-- as lost_commits in the sale.
--
-- Completed orders are kept for some minutes as 'id reservation', for the case that MySQL loses them when it fails over to
-- a replica that lags: those of even periods in the list completed:{p}:0, those of odd ones in completed:{p}:1, which die
-- when the period after their own is over.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 sale:{p}   5 outbox:{p}   6 settled:{p}
--       7 completed:{p}:0   8 completed:{p}:1
-- ARGV  1 version of the product after the commit of the fresh decisions, 0 if there are none; if they are all that this
--         commit has completed, then the version before it and the order that made the last one follow, after spaces.
--         Or 'spare', also with none
--       2 length in ms of the periods of completed orders
--       then for each order: order id, user id, quantity, 1 completed or 0 failed, 1 fresh or 0
-- Publishes on notices, if units are available again, that the product is reopened.
-- Returns  {units given back, units taken out, orders passed over}
local stock_key, reserved_key, bought_key, sale_key, outbox_key, settled_key = unpack(KEYS, 1, 6)
local NOBODY = '0' -- the buyer of a transfer
local commit, spare, period_length = ARGV[1], ARGV[1] == SPARE, tonumber(ARGV[2])

local loaded = redis.call('EXISTS', stock_key) == 1
local sale = redis.call('HMGET', sale_key, VERSION, SEEN, SEEN_BY, BORN)
local version_text, before, by = string.match(commit, '^(%d+) ?(%d*) ?(%S*)$')
local loaded_version, version, seen = tonumber(sale[1] or 0), tonumber(version_text) or 0, tonumber(sale[2] or 0)
local born = tonumber(sale[4]) or loaded_version -- a program of before has loaded it

local n = (#ARGV - 2) / 5
local ids, users, quantities, completed, fresh = {}, {}, {}, {}, {}
for i = 1, n do
  local is_completed, is_fresh
  ids[i], users[i], quantities[i], is_completed, is_fresh = unpack(ARGV, i * 5 - 2, i * 5 + 2)
  completed[i], fresh[i] = is_completed == '1', is_fresh == '1'
end
local held = redis.call('HMGET', reserved_key, unpack(ids))

local done, here, spared = ids, {}, 0
if spare then
  done = {}
  for i = 1, n do
    if held[i] and redis.call('HEXISTS', outbox_key, batch_of(ids[i], held[i])) == 1 then
      here[ids[i]] = true
      spared = spared + 1
    else
      done[#done + 1] = ids[i]
    end
  end
  if #done == 0 then
    return {0, 0, spared}
  end
end

local given, taken, changed = 0, 0, false
local bought, tombs, kept = {}, {}, {}
for i = 1, n do
  local id, user, quantity = ids[i], users[i], tonumber(quantities[i])
  if here[id] then
    -- The same order twice in a call: the first has settled it. Or it is passed over.
  elseif held[i] then
    changed = true
    if not completed[i] then
      local units = tonumber(string.match(held[i], '^%d+'))
      given = given + units
      bought[#bought + 1] = {user, -units}
    else
      if user ~= NOBODY then
        kept[#kept + 1] = id .. ' ' .. held[i]
      end
      if not fresh[i] then
        tombs[#tombs + 1] = id
      end
    end
  elseif fresh[i] and completed[i] and loaded and version > born
    and redis.call('SISMEMBER', settled_key, id) == 0 then
    if version > loaded_version then
      taken = taken + quantity
    end
    bought[#bought + 1] = {user, quantity}
  end
  here[id] = true
end

if by and by ~= '' then
  local maker, maker_before = version_text .. ' ' .. by, sale[3] or ''
  if (tonumber(before) < seen and seen < version)
    or (seen == version and maker_before ~= maker and string.match(maker_before, '^%d+') == version_text) then
    redis.call('HSET', sale_key, LOST_COMMITS, 1)
  end
  if version >= seen then
    redis.call('HSET', sale_key, SEEN_BY, maker)
  end
end
if version > seen then
  redis.call('HSET', sale_key, SEEN, version_text)
end
if changed or #bought > 0 then
  count_change(sale_key)
end
redis.call('HDEL', reserved_key, unpack(done))
if loaded and given ~= taken then
  redis.call('INCRBY', stock_key, given - taken)
  if given > taken then
    reopened(stock_key)
  end
end
for i = 1, #bought do
  if bought[i][1] ~= NOBODY then
    count_bought(bought_key, bought[i][1], bought[i][2])
  end
end
if #tombs > 0 then
  redis.call('SADD', settled_key, unpack(tombs))
end
if #kept > 0 then
  local period = math.floor(milliseconds() / period_length)
  local completed_key = KEYS[7 + period % 2]
  redis.call('RPUSH', completed_key, unpack(kept))
  redis.call('PEXPIREAT', completed_key, text_of((period + 2) * period_length - 1))
end
return {given, taken, spared}
