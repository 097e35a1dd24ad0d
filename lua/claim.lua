#!lua flags=allow-oom
-- Claims orders that have stayed in the outbox for too long, so that the caller may send them.
--
-- KEYS  1 outbox:{p}
-- ARGV  1 age in ms from which an order may be claimed, and from which a claim may be taken over
--       then order ids
-- Returns for each id  the outbox entry as it was, if it is claimed now   false if it is gone, too
--       young, or claimed by another not long ago
local now = milliseconds()
local oldest = now - tonumber(ARGV[1])
local reply, claims = {}, {}
for i = 2, #ARGV do
  reply[i - 1] = false
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry then
    local at, claimed, rest = string.match(entry, '^(%d+) (%d+) (.*)$')
    if tonumber(at) <= oldest and tonumber(claimed) <= oldest then
      claims[#claims + 1] = ARGV[i]
      claims[#claims + 1] = at .. ' ' .. text_of(now) .. ' ' .. rest
      reply[i - 1] = entry
    end
  end
end
if #claims > 0 then
  redis.call('HSET', KEYS[1], unpack(claims))
end
return reply
