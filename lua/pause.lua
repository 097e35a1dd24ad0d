#!lua flags=allow-oom
-- Pauses a product's sale, so that its stock can be compared with MySQL: nothing is reserved until the
-- pause is over, which it is by itself if nobody ends it. Orders that are reserved go on.
--
-- KEYS  1 sale:{p}
-- ARGV  1 length of the pause from now in ms, 0 to end it
-- Publishes on notices, when a pause is ended, that the product is reopened.
local sale_key = KEYS[1]
local length = tonumber(ARGV[1])

if length > 0 then
  redis.call('HSET', sale_key, PAUSED_UNTIL, text_of(milliseconds() + length))
else
  redis.call('HDEL', sale_key, PAUSED_UNTIL)
  reopened(sale_key)
end
return 1
