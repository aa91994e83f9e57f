-- Ids, epochs and ordinals are full unsigned 64-bit numbers. Lua's numbers are doubles, so they stay decimal text here and
-- are never put through tonumber().
local U64_MAX = '18446744073709551615'

-- The digits without leading zeros; nil if that is no unsigned 64-bit number.
local function u64(text)
  if #text == 0 or #text > 20 or text:find('%D') then return nil end
  if #text > 1 and text:byte() == 48 then text = text:gsub('^0+(%d)', '%1') end
  if #text == 20 and text > U64_MAX then return nil end
  return text
end

-- Of two numbers as u64() gives them: below, equal, above. The one with more digits is greater.
local function compare(a, b)
  if a == b then return 0 end
  if #a ~= #b then return #a < #b and -1 or 1 end
  return a < b and -1 or 1
end

local function increment(n)
  if n == U64_MAX then return n end
  local nines = n:match('9*$')
  local head = n:sub(1, #n - #nines)
  if head == '' then head = '0' end
  return head:sub(1, -2) .. string.char(head:byte(-1) + 1) .. ('0'):rep(#nines)
end

local function decrement(n)
  local zeros = n:match('0*$')
  local head = n:sub(1, #n - #zeros)
  local text = head:sub(1, -2) .. string.char(head:byte(-1) - 1) .. ('9'):rep(#zeros)
  return (text:gsub('^0+(%d)', '%1'))
end

-- nil if the sum is no unsigned 64-bit number.
local function add(a, b)
  local width = math.max(#a, #b)
  a, b = ('0'):rep(width - #a) .. a, ('0'):rep(width - #b) .. b
  local digits, carry = {}, 0
  for i = width, 1, -1 do
    local sum = a:byte(i) + b:byte(i) - 96 + carry
    digits[i], carry = string.char(48 + sum % 10), sum >= 10 and 1 or 0
  end
  return u64((carry == 1 and '1' or '') .. table.concat(digits))
end

-- Milliseconds and sequence number; nil if that is no id.
local function parts(id)
  local ms, seq = id:match('^(%d+)%-(%d+)$')
  if not ms then ms, seq = id:match('^%d+$'), '0' end
  ms, seq = ms and u64(ms), u64(seq)
  if ms and seq then return ms, seq end
end

local function compare_ids(a, b)
  if a == b then return 0 end
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  local order = compare(a_ms, b_ms)
  return order == 0 and compare(a_seq, b_seq) or order
end

-- The greatest id below; 0-0 below 0-0.
local function previous(id)
  local ms, seq = parts(id)
  if seq ~= '0' then return ms .. '-' .. decrement(seq) end
  if ms ~= '0' then return decrement(ms) .. '-' .. U64_MAX end
  return '0-0'
end

-- The smallest id above; nil above the last one.
local function following(id)
  local ms, seq = parts(id)
  if seq ~= U64_MAX then return ms .. '-' .. increment(seq) end
  if ms ~= U64_MAX then return increment(ms) .. '-0' end
end

-- An id at full width, so that ids sort as text.
local function padded(id)
  local ms, seq = parts(id)
  return ('0'):rep(20 - #ms) .. ms .. '-' .. ('0'):rep(20 - #seq) .. seq
end

-- A whole number below 2^53, as text.
local function text(number) return string.format('%.0f', number) end

-- Milliseconds since 1970 by the server's clock.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The fields of a flat list of names and values.
local function fields(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end

-- The group as XINFO GROUPS tells it, or nil. It costs as much as the stream has groups.
local function group_info(stream, name)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    for i = 1, #group, 2 do
      if group[i] == 'name' and group[i + 1] == name then return fields(group) end
    end
  end
end

-- Acks ARGV[first..] and returns how many were pending.
local function xack(stream, group, first)
  local acked, last = 0, #ARGV
  -- unpack() is limited by the size of the stack.
  for i = first, last, 1000 do
    acked = acked + redis.call('XACK', stream, group, unpack(ARGV, i, math.min(i + 999, last)))
  end
  return acked
end
