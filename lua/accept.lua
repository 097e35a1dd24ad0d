#!lua flags=allow-oom
-- Forgets that Redis has seen a newer version of a product than MySQL has: an operator says that what MySQL has holds.
-- From then on the loaded stock counts as the one of MySQL's version, and is corrected like any other.
--
-- KEYS  1 sale:{p}
-- ARGV  1 newest version that was seen, as the caller has read it   2 version in MySQL
-- Returns  1 forgotten   0 a newer version was seen meanwhile, nothing changed: look again
if redis.call('HGET', KEYS[1], 'seen') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'seen', ARGV[2])
redis.call('HDEL', KEYS[1], 'seen_by', 'lost_commits')
redis.call('HINCRBY', KEYS[1], 'changes', 1)
return 1
