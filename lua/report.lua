#!lua flags=allow-oom
-- Takes the report of a process about itself, and forgets processes that have not reported for long. So that a call
-- costs the same however many there are, it looks at a few of the others only: all of them together find every old one.
--
-- KEYS  1 fleet
-- ARGV  1 id of the process   2 its report, or nothing if the process ends   3 for how long a report is kept, in ms
-- Returns  1
local now = milliseconds()
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], text_of(now) .. ' ' .. ARGV[2])
end
local some = redis.call('HRANDFIELD', KEYS[1], 3, 'WITHVALUES')
for i = 1, #some, 2 do
  if now - tonumber(string.match(some[i + 1], '^%d+')) > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], some[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
