#!lua flags=allow-oom
-- Sets a key that dies by itself. It is what SET does, but for a Redis that is full: it is for what is bounded by the
-- orders that are reserved already, and for locks.
--
-- KEYS  1 the key
-- ARGV  1 value   2 lifetime in ms   3 1 if a value that is there stays, else 0
-- Returns  1 set   0 a value was there and stays
local key = KEYS[1]
local value, lifetime, stays = ARGV[1], ARGV[2], ARGV[3] == '1'

if stays and redis.call('EXISTS', key) == 1 then
  return 0
end
redis.call('SET', key, value, 'PX', lifetime)
return 1
