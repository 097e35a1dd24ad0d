#!lua flags=no-writes
-- Lists what processes have reported of themselves lately. The age of a report is told by the clock of Redis alone.
--
-- KEYS  1 fleet
-- ARGV  1 up to which age reports count, in ms
-- Returns  the reports, in no order
local fleet_key = KEYS[1]
local max_age = tonumber(ARGV[1])

local now = milliseconds()
local reports = {}
for _, value in ipairs(redis.call('HVALS', fleet_key)) do
  local at, report = string.match(value, '^(%d+) (.*)$')
  if now - tonumber(at) <= max_age then
    reports[#reports + 1] = report
  end
end
return reports
