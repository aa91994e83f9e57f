-- KEYS: stream, and heartbeats where the living are to be counted. ARGV: group or nothing. Only ids and counts leave the server,
-- not the first and last entry of XINFO.
local reply = redis.pcall('XINFO', 'STREAM', KEYS[1])
if reply.err then
  if reply.err:find('no such key', 1, true) then return false end
  return reply
end
local info = fields(reply)
local first = info['first-entry']
local state = { info.length, first and first[1] or false, info['last-generated-id'], info['entries-added'] or false }
local group = #ARGV > 0 and group_info(KEYS[1], ARGV[1])
if group then
  local pending = group.pending > 0 and redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1)[1]
  local alive = false
  if KEYS[2] then
    local beats = redis.pcall('HVALS', KEYS[2])
    if beats.err then return no_beats(beats, KEYS[2]) end
    local time = now()
    alive = 0
    for _, value in ipairs(beats) do
      local _, stands = read_beat(value, time)
      if stands then alive = alive + 1 end
    end
  end
  state[5] = {
    group['last-delivered-id'], group['entries-read'] or false, group.pending, pending and pending[1] or false, alive,
  }
end
return state
