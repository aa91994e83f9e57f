-- Heartbeats: a hash beside the group, from consumer to "token deadline", the deadline in ms by the server's clock.

-- Beside them, when the last look was that found nobody dead. No consumer can have this name.
local LOOK = '\n'

-- The token, and whether the heartbeat still stands; nothing if there is none.
local function read_beat(value, time)
  local token, deadline = (value or ''):match('^(%d+) (%d+)$')
  if token then return token, tonumber(deadline) > time end
end

-- The error of a key that holds no heartbeats, with its name, which is not one that the caller chose.
local function no_beats(failed, key)
  return { err = failed.err .. ' in ' .. key }
end

local function has_pending(stream, group, consumer)
  return #redis.call('XPENDING', stream, group, '-', '+', 1, consumer) > 0
end
