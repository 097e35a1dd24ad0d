#!lua flags=no-writes
-- Lists what processes have reported of themselves lately. The age of a report is told by the clock of Redis alone.
--
-- KEYS  1 fleet
-- ARGV  1 up to which age reports count, in ms
-- Returns  the reports, in no order
local now = milliseconds()
local reports = {}
for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
  local at, report = string.match(value, '^(%d+) (.*)$')
  if now - tonumber(at) <= tonumber(ARGV[1]) then
    reports[#reports + 1] = report
  end
end
return reports
