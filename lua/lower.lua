#!lua flags=allow-oom
-- Lowers what buyers have to what MySQL says that they have, if nothing has moved since the caller looked at Redis, before
-- it read MySQL.
--
-- KEYS  1 bought:{p}   2 sale:{p}
-- ARGV  1 epoch and 2 number of changes, as the caller has seen them   3 1 if all other buyers have been compared, or 0
--       then for each buyer: user id, units
-- Returns  1 lowered   0 something has moved, nothing changed: look again
local known = redis.call('HMGET', KEYS[2], 'epoch', 'changes')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then
  return 0
end
for i = 4, #ARGV, 2 do
  if tonumber(ARGV[i + 1]) > 0 then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  else
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
if ARGV[3] == '1' then
  redis.call('HSET', KEYS[2], 'counted', ARGV[2])
end
return 1
