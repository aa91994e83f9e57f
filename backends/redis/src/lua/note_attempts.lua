-- KEYS: checkpoint, groups, settled, attempts. ARGV: group, epoch, how many to remember, for each its id and text, ids to
-- forget.
local record, refusal = load_record()
refusal = refusal or check_epoch(record, ARGV[2])
if refusal then return refusal end
local kind = redis.call('TYPE', KEYS[4]).ok
if kind ~= 'none' and kind ~= 'hash' then return { 'ok', 'unreadable' } end
-- A command that frees memory comes first: servers without script flags let the rest through at the memory limit then.
redis.call('HDEL', KEYS[4], '')
-- unpack() is limited by the size of the stack.
local function each(command, first, last)
  for start = first, last, 1000 do
    redis.call(command, KEYS[4], unpack(ARGV, start, math.min(start + 999, last)))
  end
end
local last = 3 + 2 * tonumber(ARGV[3])
each('HSET', 4, last)
each('HDEL', last + 1, #ARGV)
return { 'ok', 'done' }
