-- ARGV: how many letters. A letter: its id, that of its entry, key or nothing, how many names and values to append, names and
-- values. Returns for each the id of what was appended, or what else became of it.
local letters, appends, at = {}, 0, 2
for i = 1, tonumber(ARGV[1]) do
  local count = tonumber(ARGV[at + 3])
  letters[i] = { letter = ARGV[at], id = ARGV[at + 1], key = ARGV[at + 2], first = at + 4, last = at + 3 + count }
  if count > 0 then appends = appends + 1 end
  at = at + 4 + count
end

local commands = { { 'XDEL', grave, '0-0' }, { 'HDEL', index, '' }, { 'ZREM', counted, '' } }
if appends > 0 then commands[4] = { 'XADD', source, '*', '', '' } end
local refusal = wrong_type() or exhausted(source, appends) or denied(commands)
if refusal then return refusal end

-- A command that frees memory comes first: servers without script flags let the rest through at the memory limit then.
redis.call('HDEL', index, '')
local answers = { 'ok' }
for i, letter in ipairs(letters) do
  local answer = 'gone'
  if letter_fields(letter.letter) then
    answer = 'dropped'
    if letter.first <= letter.last then
      answer = redis.call('XADD', source, '*', unpack(ARGV, letter.first, letter.last))
    end
    redis.call('XDEL', grave, letter.letter)
    if redis.call('HGET', index, letter.id) == letter.letter then redis.call('HDEL', index, letter.id) end
    if letter.key ~= '' then redis.call('ZREM', counted, letter.key .. ':' .. padded(letter.letter)) end
  end
  answers[i + 1] = answer
end
return answers
