#!lua flags=allow-oom
-- Sets a key that dies by itself. It is what SET does, but for a Redis that is full: it is for what is bounded by the
-- orders that are reserved already, and for locks.
--
-- KEYS  1 the key
-- ARGV  1 value   2 lifetime in ms   3 1 if a value that is there stays, else 0
-- Returns  1 set   0 a value was there and stays
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
