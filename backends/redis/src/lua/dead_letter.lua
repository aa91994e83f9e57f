-- ARGV: group, whose the entries must be or nothing, for how many letters with a key there is room, how many letters. A letter:
-- id of its entry, how many of its fields' names and values are the entry's, key or nothing, whether it is parked, how many
-- names and values, names and values. Returns the fate of each.
local group, holder, room = ARGV[1], ARGV[2], tonumber(ARGV[3])
local letters, at = {}, 5
for i = 1, tonumber(ARGV[4]) do
  local own, count = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 4])
  letters[i] = {
    id = ARGV[at], own = own, key = ARGV[at + 2], parked = ARGV[at + 3] == '1', first = at + 5, last = at + 4 + count,
  }
  at = at + 5 + count
end

-- All that may fail does so here: the server does not take back what a script did before it failed.
local refusal = wrong_type() or exhausted(grave, #letters) or denied({
  { 'XADD', grave, '*', '', '' }, { 'HSET', index, '', '' }, { 'HDEL', index, '' }, { 'ZADD', counted, 0, '' },
  { 'ZREM', counted, '' }, { 'XACK', source, group, '0-0' }, { 'HRANDFIELD', index, 1 }, { 'ZRANDMEMBER', counted, 1 },
})
if refusal then return refusal end
local summary = holder ~= '' and redis.pcall('XPENDING', source, group)
local no_group = summary and summary.err and summary.err:find('NOGROUP', 1, true)
if summary and summary.err and not no_group then return summary end

-- Whether there is a letter of this very entry. One of another life of the stream may have had its id.
local function lies(letter)
  local id = redis.call('HGET', index, letter.id)
  local stored = id and letter_fields(id)
  if not stored or #stored ~= letter.last - letter.first + 1 then return false end
  for i = 1, letter.own do
    if stored[i] ~= ARGV[letter.first + i - 1] then return false end
  end
  return true
end

local function is_held(id)
  if holder == '' then return true end
  return not no_group and #redis.call('XPENDING', source, group, id, id, 1, holder) > 0
end

-- Forgets what was trimmed, of so many letters at random: little work each time, and never much that is left to forget.
local function prune(count)
  local first = oldest()
  local some = redis.call('HRANDFIELD', index, count, 'WITHVALUES')
  for i = 1, #some, 2 do
    if padded(some[i + 1]) < first then redis.call('HDEL', index, some[i]) end
  end
  for _, member in ipairs(redis.call('ZRANDMEMBER', counted, count)) do
    if member:sub(18) < first then redis.call('ZREM', counted, member) end
  end
end

local function is_full()
  if redis.call('ZCARD', counted) < room then return false end
  prune(1000)
  return redis.call('ZCARD', counted) >= room
end

local fates, buried = { 'ok' }, 0
for i, letter in ipairs(letters) do
  local fate = 'buried'
  if lies(letter) then
    redis.call('XACK', source, group, letter.id)
  elseif not is_held(letter.id) then
    fate = 'not held'
  elseif letter.parked and not is_dead(letter.key) then
    fate = 'unparked'
  elseif letter.parked and is_full() then
    fate = 'full'
  else
    -- At the memory limit servers without script flags refuse the first command that needs memory: nothing is acked then.
    local id = redis.pcall('XADD', grave, '*', unpack(ARGV, letter.first, letter.last))
    if type(id) == 'table' then return id end
    redis.call('HSET', index, letter.id, id)
    if letter.key ~= '' then redis.call('ZADD', counted, 0, letter.key .. ':' .. padded(id)) end
    redis.call('XACK', source, group, letter.id)
    buried = buried + 1
  end
  fates[i + 1] = fate
end
if buried > 0 then prune(4 * buried) end
return fates
