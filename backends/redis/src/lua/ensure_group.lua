-- KEYS: stream. ARGV: group, id, count of entries up to it or nothing. Returns whether the group was created.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err and not groups.err:find('no such key', 1, true) then return groups end
local delivered
for _, group in ipairs(groups.err and {} or groups) do
  local info = fields(group)
  if info.name == ARGV[1] then delivered = info['last-delivered-id'] end
end
local command = { 'XGROUP', delivered and 'SETID' or 'CREATE', KEYS[1], ARGV[1], ARGV[2] }
if not delivered then command[#command + 1] = 'MKSTREAM' end
if ARGV[3] ~= '' then
  command[#command + 1] = 'ENTRIESREAD'
  command[#command + 1] = ARGV[3]
end
if delivered and compare_ids(delivered, ARGV[2]) >= 0 then return 0 end
local done = redis.pcall(unpack(command))
if done.err then return done end
return delivered and 0 or 1
