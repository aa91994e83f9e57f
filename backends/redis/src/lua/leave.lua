-- KEYS: stream, heartbeats. ARGV: group, consumer, token. Returns how much is pending for the consumer.
local stored = redis.pcall('HGET', KEYS[2], ARGV[2])
if type(stored) == 'table' and stored.err then return no_beats(stored, KEYS[2]) end
local summary = redis.pcall('XPENDING', KEYS[1], ARGV[1])
local gone = summary.err and summary.err:find('NOGROUP', 1, true)
if summary.err and not gone then return summary end
local pending = 0
for _, consumer in ipairs(not gone and summary[4] or {}) do
  if consumer[1] == ARGV[2] then pending = tonumber(consumer[2]) end
end
local token = read_beat(stored, 0)
if token and token ~= ARGV[3] then return pending end
-- Who looks next finds what this one leaves.
redis.call('HDEL', KEYS[2], ARGV[2], LOOK)
if pending == 0 then
  if not gone then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
else
  -- A heartbeat that has run out: others may claim at once, whatever the idle time.
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ' 0')
end
return pending
