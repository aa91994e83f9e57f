-- KEYS: heartbeats. ARGV: consumer, token, time to live in ms.
local stored = redis.pcall('HGET', KEYS[1], ARGV[1])
if type(stored) == 'table' and stored.err then return no_beats(stored, KEYS[1]) end
local time = now()
local token, stands = read_beat(stored, time)
if stands and token ~= ARGV[2] then return 'busy' end
-- A command that frees memory comes first: servers without script flags let the rest through at the memory limit then.
redis.call('HDEL', KEYS[1], '')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. text(time + tonumber(ARGV[3])))
return stands and 'unbroken' or 'fresh'
