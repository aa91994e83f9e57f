-- Which of ARGV[first..], which ascend, are settled: at or below the watermark, ahead of it, or in the sorted set KEYS[3]. They
-- are put behind what is in `found`. The second value is what to answer if the set cannot be read.
local function settled_before(record, first, found)
  local kind = redis.call('TYPE', KEYS[3]).ok
  if kind ~= 'none' and kind ~= 'zset' then return found, { 'corrupt' } end
  local watermark, top, holes = '', '', {}
  if record and record.watermark ~= '' then watermark = padded(record.watermark) end
  if record and record.top then
    top = padded(record.top)
    for token in record.full:match('^(.*) >'):gmatch('[^ ]+') do
      local from, to = token:match('^(.-)%.%.(.*)$')
      holes[#holes + 1] = { padded(from or token), padded(to or token) }
    end
  end
  -- New entries are above whatever is settled.
  if kind == 'none' and #ARGV >= first and padded(ARGV[first]) > (top > watermark and top or watermark) then return found end
  local hole = 1
  -- unpack() is limited by the size of the stack.
  for start = first, #ARGV, 1000 do
    local stop = math.min(start + 999, #ARGV)
    local names = {}
    for i = start, stop do names[#names + 1] = padded(ARGV[i]) end
    local scores = kind == 'zset' and redis.call('ZMSCORE', KEYS[3], unpack(names)) or {}
    for i, name in ipairs(names) do
      while holes[hole] and holes[hole][2] < name do hole = hole + 1 end
      local is_hole = holes[hole] and holes[hole][1] <= name
      if name <= watermark or (name <= top and not is_hole) or scores[i] then found[#found + 1] = ARGV[start + i - 1] end
    end
  end
  return found
end
