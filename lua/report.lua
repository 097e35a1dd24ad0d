#!lua flags=allow-oom
-- Takes the report of a process about itself, and forgets processes that have not reported for long. So that a call
-- costs the same however many there are, it looks at a few of the others only: all of them together find every old one.
--
-- KEYS  1 fleet
-- ARGV  1 id of the process   2 its report, or nothing if the process ends   3 for how long a report is kept, in ms
-- Returns  1
local fleet_key = KEYS[1]
local process, report, kept = ARGV[1], ARGV[2], tonumber(ARGV[3])

local now = milliseconds()
if report == '' then
  redis.call('HDEL', fleet_key, process)
else
  redis.call('HSET', fleet_key, process, text_of(now) .. ' ' .. report)
end

local some = redis.call('HRANDFIELD', fleet_key, 3, 'WITHVALUES')
for i = 1, #some, 2 do
  local other, at = some[i], string.match(some[i + 1], '^%d+')
  if now - tonumber(at) > kept then
    redis.call('HDEL', fleet_key, other)
  end
end
redis.call('PEXPIRE', fleet_key, kept)
return 1
