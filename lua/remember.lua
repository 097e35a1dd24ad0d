#!lua flags=allow-oom
-- Puts products that are loaded into the set of them, also if Redis is full: who is not in the set is not drained.
--
-- KEYS  1 products
-- ARGV  product ids
-- Returns  how many were not in the set
return redis.call('SADD', KEYS[1], unpack(ARGV))
