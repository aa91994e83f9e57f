-- KEYS: stream, heartbeats. ARGV: group. Returns how many groups were removed.
local removed = redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
if type(removed) == 'table' then
  if not removed.err:find('requires the key to exist', 1, true) then return removed end
  removed = 0
end
redis.call('DEL', KEYS[2])
return removed
