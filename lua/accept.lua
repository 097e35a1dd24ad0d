#!lua flags=allow-oom
-- Forgets that Redis has seen a newer version of a product than MySQL has: an operator says that what MySQL has holds.
-- From then on the loaded stock counts as the one of MySQL's version, and is corrected like any other.
--
-- KEYS  1 sale:{p}
-- ARGV  1 newest version that was seen, as the caller has read it   2 version in MySQL
-- Returns  1 forgotten   0 a newer version was seen meanwhile, nothing changed: look again
local sale_key = KEYS[1]
local seen, version = ARGV[1], ARGV[2]

if redis.call('HGET', sale_key, SEEN) ~= seen then
  return 0
end
redis.call('HSET', sale_key, VERSION, version, SEEN, version)
redis.call('HDEL', sale_key, SEEN_BY, LOST_COMMITS)
count_change(sale_key)
return 1
