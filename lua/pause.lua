#!lua flags=allow-oom
-- Pauses a product's sale, so that its stock can be compared with MySQL: nothing is reserved until the
-- pause is over, which it is by itself if nobody ends it. Orders that are reserved go on.
--
-- KEYS  1 sale:{p}
-- ARGV  1 length of the pause from now in ms, 0 to end it
-- Publishes on notices, when a pause is ended, that the product is reopened.
if tonumber(ARGV[1]) > 0 then
  local now = milliseconds()
  redis.call('HSET', KEYS[1], 'paused_until', text_of(now + tonumber(ARGV[1])))
else
  redis.call('HDEL', KEYS[1], 'paused_until')
  reopened(KEYS[1])
end
return 1
