-- KEYS: stream. ARGV: what the keys of the groups' heartbeats begin with. Returns how many streams were removed.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  if groups.err:find('no such key', 1, true) then return 0 end
  return groups
end
for _, group in ipairs(groups) do redis.call('DEL', ARGV[1] .. fields(group).name) end
return redis.call('DEL', KEYS[1])
