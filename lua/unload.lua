#!lua flags=allow-oom
-- Forgets a product whose sale has long ended, if nothing has moved since the caller looked and nothing is
-- on its way. What comes later loads it again.
--
-- KEYS  1 stock:{p}   2 reserved:{p}   3 bought:{p}   4 sale:{p}   5 outbox:{p}   6 settled:{p}
--       7 lent:{p}
-- ARGV  1 epoch and 2 number of changes, as the caller has seen them
-- Returns  1 forgotten   0 something has moved or is on its way, nothing changed
local known = redis.call('HMGET', KEYS[4], 'epoch', 'changes')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or redis.call('EXISTS', KEYS[2], KEYS[5], KEYS[7]) > 0 then
  return 0
end
redis.call('DEL', unpack(KEYS))
return 1
