-- Trims to a length, but not past an id. KEYS: stream. ARGV: entries to keep, id from which on all are kept, most steps.
-- Returns how many were removed, and whether there may be more to remove.
local length = redis.pcall('XLEN', KEYS[1])
if type(length) == 'table' then return length end
local excess, removed = length - tonumber(ARGV[1]), 0
for _ = 1, tonumber(ARGV[3]) do
  if excess <= 0 then return { removed, 0 } end
  -- No command counts entries below an id without handing them out, so they are looked at in small steps.
  local oldest = redis.call('XRANGE', KEYS[1], '-', '(' .. ARGV[2], 'COUNT', math.min(excess, 128))
  if #oldest == 0 then return { removed, 0 } end
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', length - removed - #oldest)
  removed, excess = removed + #oldest, excess - #oldest
end
return { removed, excess > 0 and 1 or 0 }
