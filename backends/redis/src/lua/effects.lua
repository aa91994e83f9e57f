-- KEYS: checkpoint, groups, settled, stream, those of the effects. ARGV: group, epoch, owner, how to settle (`position`,
-- `each`, or `group`), watermark, ahead, ordinal, incarnation, most bytes of the ahead text, how many effects, the effects, ids
-- in ascending order. An effect: command, number of its key, how many arguments, arguments.
local group, owner, how = ARGV[1], ARGV[3], ARGV[4]
local record, refusal = load_record()
refusal = refusal or check_epoch(record, ARGV[2])
if refusal then return refusal end

local effects, at = {}, 11
for i = 1, tonumber(ARGV[10]) do
  local key, arguments = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  effects[i] = { name = ARGV[at], key = key, first = at + 3, last = at + 2 + arguments }
  at = at + 3 + arguments
end
local first_id = at

local before, unreadable = settled_before(record, first_id, { 'ok', 'settled' })
if unreadable then return unreadable end
if #before > 2 then return before end
local kind = redis.call('TYPE', KEYS[4]).ok
if how == 'group' and kind ~= 'none' and kind ~= 'stream' then
  return { err = 'WRONGTYPE Operation against a key holding the wrong kind of value' }
end
for i, effect in ipairs(effects) do
  local why = foresee[effect.name](effect.key, effect.first)
  if why then return { 'ok', 'refused', i, why } end
end

-- Servers before 7.0 do not say what a user may do; there, a command that is refused is refused when it comes.
if redis.acl_check_cmd then
  local commands = { { 'SADD', KEYS[2], group }, { 'HDEL', KEYS[1], '' }, { 'HSET', KEYS[1], '', '' } }
  if how ~= 'position' then commands[#commands + 1] = { 'ZADD', KEYS[3], 0, '' } end
  if how ~= 'each' then commands[#commands + 1] = { 'ZREMRANGEBYLEX', KEYS[3], '-', '+' } end
  if how == 'group' then
    commands[#commands + 1] = { 'XPENDING', KEYS[4], group }
    commands[#commands + 1] = { 'XACK', KEYS[4], group, '0-0' }
    commands[#commands + 1] = { 'XINFO', 'GROUPS', KEYS[4] }
  end
  local asked = {}
  for _, effect in ipairs(effects) do
    local what = effect.name .. ' ' .. effect.key
    if not asked[what] then
      asked[what] = true
      commands[#commands + 1] = { effect.name, KEYS[effect.key], unpack(ARGV, effect.first, effect.last) }
    end
  end
  for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then return { 'ok', 'denied', command[1] } end
  end
end

-- The first command that writes needs memory. At the memory limit a server refuses it, and lets through what follows others.
local refused = redis.pcall('SADD', KEYS[2], group)
if type(refused) == 'table' and refused.err then return refused end
for _, effect in ipairs(effects) do
  redis.call(effect.name, KEYS[effect.key], unpack(ARGV, effect.first, effect.last))
end
if how == 'position' then
  local new = { watermark = ARGV[5], ahead = ARGV[6], ordinal = ARGV[7], incarnation = ARGV[8] }
  local _, watermark = advance_record(record, new, owner, group)
  return { 'ok', 'done', watermark }
end
-- What the group acks is most often below all that is pending, so that the watermark says of it that it is settled.
local failed, answer, watermark = false, nil, nil
if how == 'group' then
  local done
  done, answer, watermark = pcall(settle_in_group, record, group, first_id, 'drained', tonumber(ARGV[9]), owner)
  failed = not done
end
local below = watermark and padded(watermark) or ''
for start = padded(ARGV[#ARGV]) > below and first_id or #ARGV + 1, #ARGV, 1000 do
  local members = {}
  for i = start, math.min(start + 999, #ARGV) do
    local name = padded(ARGV[i])
    if name > below then
      members[#members + 1] = 0
      members[#members + 1] = name
    end
  end
  if #members > 0 then redis.call('ZADD', KEYS[3], unpack(members)) end
end
-- Where the group refuses it, the effects are there all the same, and the entries are settled with them.
if failed then error(answer, 0) end
if answer and answer.err then return answer end
return { 'ok', 'done', watermark or false }
