-- The dead letters of a subscription in one stream. KEYS: the stream that is consumed, that of the letters, a hash from the id
-- of an entry to that of its letter, a sorted set of the letters that have a key: "key:id", both at full width, so that those
-- of a key stand together and in order.
local source, grave, index, counted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

-- What to answer if a key holds something else.
local function wrong_type()
  for i, kind in ipairs({ 'stream', 'stream', 'hash', 'zset' }) do
    local found = redis.call('TYPE', KEYS[i]).ok
    if found ~= 'none' and found ~= kind then
      return { err = 'WRONGTYPE Operation against a key holding the wrong kind of value in ' .. KEYS[i] }
    end
  end
end

-- What to answer if one of these commands may not be run. Servers before 7.0 do not say what a user may do; there, a command
-- that is refused is refused when it comes.
local function denied(commands)
  if not redis.acl_check_cmd then return end
  for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then return { 'denied', command[1] } end
  end
end

-- What to answer if a stream has not so many ids left.
local function exhausted(stream, count)
  if count == 0 or redis.call('EXISTS', stream) == 0 then return end
  local last = fields(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
  for _ = 1, count do
    last = following(last)
    if not last then return { err = 'ERR The stream has exhausted the last possible ID, unable to add more items' } end
  end
end

-- The fields of a letter; nothing if it is gone.
local function letter_fields(id)
  local found = redis.call('XRANGE', grave, id, id)[1]
  return found and found[2]
end

-- Trimming takes the oldest letters: those below this id are gone. nil where there is no letter.
local function oldest()
  local first = redis.call('XRANGE', grave, '-', '+', 'COUNT', 1)[1]
  return first and padded(first[1])
end

-- Whether the last letter of a key is there, so that the key counts.
local function is_dead(key)
  local last = redis.call('ZREVRANGEBYLEX', counted, '(' .. key .. ';', '[' .. key .. ':', 'LIMIT', 0, 1)[1]
  if not last then return false end
  local ms, seq = parts(last:sub(18))
  return letter_fields(ms .. '-' .. seq) ~= nil
end
