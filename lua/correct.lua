#!lua flags=allow-oom
-- Sets the units available to what they must be by what MySQL says, if nothing has moved since the caller
-- looked at Redis, before it read MySQL. From then on the loaded stock is the one of that version: an order
-- that was decided by it and has no reservation is not taken out again.
--
-- KEYS  1 stock:{p}   2 sale:{p}
-- ARGV  1 epoch and 2 number of changes, as the caller has seen them   3 units available   4 version in MySQL
-- Publishes on notices, if there are more units than before, that the product is reopened.
-- Returns  1 set   0 something has moved, nothing changed: look again
local known = redis.call('HMGET', KEYS[2], 'epoch', 'changes', 'seen')
local stock = redis.call('GET', KEYS[1])
if not stock or known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('HSET', KEYS[2], 'version', ARGV[4])
redis.call('HINCRBY', KEYS[2], 'changes', 1)
if tonumber(ARGV[4]) > tonumber(known[3] or 0) then
  redis.call('HSET', KEYS[2], 'seen', ARGV[4])
end
if tonumber(ARGV[3]) > tonumber(stock) then
  reopened(KEYS[1])
end
return 1
