#!lua flags=allow-oom
-- Claims orders that have stayed in the outbox for too long, so that the caller may send them.
--
-- KEYS  1 outbox:{p}
-- ARGV  1 age in ms from which an order may be claimed, and from which a claim may be taken over
--       then order ids
-- Returns for each id  the outbox entry as it was, if it is claimed now   false if it is gone, too
--       young, or claimed by another not long ago
local outbox_key = KEYS[1]
local min_age = tonumber(ARGV[1])
local now = milliseconds()
local oldest = now - min_age

local reply, claims = {}, {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local entry = redis.call('HGET', outbox_key, id)
  reply[i - 1] = false
  if entry then
    local reserved_at, claimed, rest = string.match(entry, '^(%d+) (%d+) (.*)$')
    if tonumber(reserved_at) <= oldest and tonumber(claimed) <= oldest then
      claims[#claims + 1] = id
      claims[#claims + 1] = reserved_at .. ' ' .. text_of(now) .. ' ' .. rest
      reply[i - 1] = entry
    end
  end
end

if #claims > 0 then
  redis.call('HSET', outbox_key, unpack(claims))
end
return reply
