-- ARGV: the key behind which to go on, or nothing; how many keys at most. Returns where to go on, or false, then keys and how
-- many letters each has. What was trimmed is forgotten.
local err = wrong_type()
if err then return err end
local first = oldest()
if not first then
  redis.call('UNLINK', index, counted)
  return { false }
end
local key, found = ARGV[1], { false }
for _ = 1, tonumber(ARGV[2]) do
  local from = key == '' and '-' or '(' .. key .. ';'
  local member = redis.call('ZRANGEBYLEX', counted, from, '+', 'LIMIT', 0, 1)[1]
  if not member then return found end
  key = member:sub(1, 16)
  local stays = is_dead(key)
  redis.call('ZREMRANGEBYLEX', counted, '[' .. key .. ':', stays and '(' .. key .. ':' .. first or '(' .. key .. ';')
  if stays then
    found[#found + 1] = key
    found[#found + 1] = redis.call('ZLEXCOUNT', counted, '[' .. key .. ':', '(' .. key .. ';')
  end
end
found[1] = key
return found
