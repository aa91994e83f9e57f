-- KEYS: stream, heartbeats. ARGV: group, consumer, first id, limit, idle time in ms, for how many ms a look of anybody that
-- found nobody dead will do. Returns where to go on, then for each claimed entry its id, its delivery count and its fields, or
-- false where it left the stream.
--
-- The work of a call is bounded by the consumers of the group, and for each that may be claimed from by the limit or, where
-- the idle time of each entry decides, by SCAN_MAX.
local stream, group, me, limit = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[4])
local min_idle = tonumber(ARGV[5])
local SCAN_MAX = math.max(1000, limit + 1)

local time, within = now(), ARGV[3] == '0-0' and tonumber(ARGV[6]) or 0
if within > 0 then
  local looked_at = redis.pcall('HGET', KEYS[2], LOOK)
  if type(looked_at) == 'table' then return no_beats(looked_at, KEYS[2]) end
  local ago = looked_at and time - (tonumber(looked_at) or 0) or within
  if ago >= 0 and ago < within then return { false, {} } end
end

local summary = redis.pcall('XPENDING', stream, group)
if summary.err then return summary end
local beats = redis.pcall('HGETALL', KEYS[2])
if beats.err then return no_beats(beats, KEYS[2]) end
beats = fields(beats)

-- What may be claimed, and the id up to which all of it is known.
local found, bound = {}, nil
for _, owner in ipairs(summary[4] or {}) do
  local name = owner[1]
  local token, stands = read_beat(beats[name], time)
  if name ~= me and not stands then
    local count = token and limit + 1 or SCAN_MAX
    local list = redis.call('XPENDING', stream, group, ARGV[3], '+', count, name)
    if #list == count and (not bound or compare_ids(list[count][1], bound) < 0) then bound = list[count][1] end
    for _, entry in ipairs(list) do
      if token or tonumber(entry[3]) >= min_idle then found[#found + 1] = entry end
    end
  end
end
table.sort(found, function(a, b) return compare_ids(a[1], b[1]) < 0 end)

local entries, last, left = {}, nil, false
for _, entry in ipairs(found) do
  local id, deliveries = entry[1], tonumber(entry[4])
  if bound and compare_ids(id, bound) > 0 then break end
  if #entries == limit then
    left = true
    break
  end
  local stored = redis.call('XRANGE', stream, id, id)
  if #stored == 0 then
    -- The entry left the stream. XCLAIM would drop it from the pending list without a word, so it is left with its owner:
    -- it stays pending until the caller acks it, and comes again if the caller dies before.
    entries[#entries + 1] = { id, deliveries, false }
  else
    redis.call('XCLAIM', stream, group, me, 0, id, 'RETRYCOUNT', deliveries + 1, 'JUSTID')
    entries[#entries + 1] = { id, deliveries + 1, stored[1][2] }
  end
  last = id
end

for name, value in pairs(beats) do
  local token, stands = read_beat(value, time)
  if token and not stands and name ~= me and not has_pending(stream, group, name) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
    redis.call('HDEL', KEYS[2], name)
  end
end
if within > 0 and #found == 0 and beats[me] then
  -- A command that frees memory comes first: servers without script flags let the rest through at the memory limit then.
  redis.call('HDEL', KEYS[2], LOOK)
  redis.call('HSET', KEYS[2], LOOK, text(time))
end
local go_on = left and last or bound
return { go_on and following(go_on) or false, entries }
