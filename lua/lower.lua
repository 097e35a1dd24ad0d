#!lua flags=allow-oom
-- Lowers what buyers have to what MySQL says that they have, if nothing has moved since the caller looked at Redis, before
-- it read MySQL.
--
-- KEYS  1 bought:{p}   2 sale:{p}
-- ARGV  1 epoch and 2 number of changes, as the caller has seen them   3 1 if all other buyers have been compared, or 0
--       then for each buyer: user id, units
-- Returns  1 lowered   0 something has moved, nothing changed: look again
local bought_key, sale_key = unpack(KEYS)
local epoch, changes, all = ARGV[1], ARGV[2], ARGV[3] == '1'

if not is_still(sale_key, epoch, changes) then
  return 0
end
for i = 4, #ARGV, 2 do
  local user, units = ARGV[i], ARGV[i + 1]
  if tonumber(units) > 0 then
    redis.call('HSET', bought_key, user, units)
  else
    redis.call('HDEL', bought_key, user)
  end
end
if all then
  redis.call('HSET', sale_key, COUNTED, changes)
end
return 1
