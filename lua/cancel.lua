#!lua flags=allow-oom
-- Gives back the units of orders that the queue refused, as if they had never been reserved.
--
-- Only an order that is still in the outbox and unclaimed can be cancelled: one that somebody claimed
-- may be on its way to the queue, and one that has left the outbox is there already.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 outbox:{p}   5 sale:{p}
--       6.. idem:{p}:<user>:<key> of each order that has an idempotency key, in the order of ARGV
-- ARGV  for each order: order id, user id, 1 if it has an idempotency key, else 0
-- Publishes on notices, if units are available again, that the product is reopened.
-- Returns for each order  1 cancelled   0 there is no such reservation   -1 too late, nothing changed
local n = #ARGV / 3
local reply, k, given = {}, 5, false
for i = 1, n do
  local id, user = ARGV[i * 3 - 2], ARGV[i * 3 - 1]
  local idem = nil
  if ARGV[i * 3] == '1' then
    k = k + 1
    idem = KEYS[k]
  end
  local units = redis.call('HGET', KEYS[2], id)
  local entry = redis.call('HGET', KEYS[4], id)
  if not units then
    reply[i] = 0
  elseif not entry or string.match(entry, '^%d+ (%d+)') ~= '0' then
    reply[i] = -1
  else
    reply[i] = 1
    local record = idem and redis.call('GET', idem)
    if redis.call('EXISTS', KEYS[1]) == 1 then
      redis.call('INCRBY', KEYS[1], units)
      given = true
    end
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[4], id)
    if redis.call('HINCRBY', KEYS[3], user, -units) <= 0 then
      redis.call('HDEL', KEYS[3], user)
    end
    if record and string.sub(record, 1, #id) == id then
      redis.call('DEL', idem)
    end
  end
end
if given then
  redis.call('HINCRBY', KEYS[5], 'changes', 1)
  reopened(KEYS[1])
end
return reply
