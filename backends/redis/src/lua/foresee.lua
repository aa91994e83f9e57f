-- What effects would do, without doing it: the server does not take back what a script did before it failed, so nothing is
-- written before all of it is known to succeed. A key that lost its last member is still taken to be of its type, which
-- refuses a little more than the server would.

-- A key as the effects before have left it. `known`: values by field, that of a string under ''; false where there is none.
-- `whole`: there is nothing but what is known.
local keys_seen = {}

local function seen(number)
  local state = keys_seen[number]
  if not state then
    state = { key = KEYS[number], kind = redis.call('TYPE', KEYS[number]).ok, known = {}, whole = false }
    keys_seen[number] = state
  end
  return state
end

local function become(number, kind)
  keys_seen[number] = { key = KEYS[number], kind = kind, known = {}, whole = true }
  return keys_seen[number]
end

-- A key of one type: why not, if it cannot be one.
local function of_kind(number, kind)
  local state = seen(number)
  if state.kind == 'none' then state = become(number, kind) end
  if state.kind ~= kind then return nil, 'type' end
  return state
end

local function value_of(state, field)
  local value = state.known[field]
  if value == nil and not state.whole then
    -- No more of a long text than shows that it is no integer.
    if state.kind == 'string' then value = redis.call('GETRANGE', state.key, 0, 20)
    else value = redis.call('HGET', state.key, field) end
  end
  return value or '0'
end

local function increase(state, field, by)
  local total, why = sum(value_of(state, field), by)
  state.known[field] = total
  return why
end

-- The id that an entry gets: the server's rule, so that the ids of several entries are known before they are added.
local function next_id(state, asked)
  local last = state.last or '0-0'
  if not (state.whole or state.last) then
    last = fields(redis.call('XINFO', 'STREAM', state.key))['last-generated-id']
  end
  local id = asked
  if asked == '*' then
    id = text(math.max(now(), 0)) .. '-0'
    if compare_ids(id, last) <= 0 then id = following(last) end
    if not id then return nil, 'full' end
  elseif compare_ids(id, last) <= 0 then
    return nil, 'id'
  end
  state.last = id
  return id
end

-- For each command: why it would fail, or nothing. `at` is its first argument.
local foresee = {}

function foresee.SET(number, at) become(number, 'string').known[''] = ARGV[at] end

function foresee.DEL(number) become(number, 'none') end

function foresee.PEXPIRE() end

function foresee.INCRBY(number, at)
  local state, why = of_kind(number, 'string')
  return why or increase(state, '', ARGV[at])
end

function foresee.HSET(number, at)
  local state, why = of_kind(number, 'hash')
  if state then state.known[ARGV[at]] = ARGV[at + 1] end
  return why
end

function foresee.HDEL(number, at)
  local state, why = of_kind(number, 'hash')
  if state then state.known[ARGV[at]] = false end
  return why
end

function foresee.HINCRBY(number, at)
  local state, why = of_kind(number, 'hash')
  return why or increase(state, ARGV[at], ARGV[at + 1])
end

function foresee.XADD(number, at)
  local state, why = of_kind(number, 'stream')
  if not state then return why end
  ARGV[at], why = next_id(state, ARGV[at])
  return why
end

local KINDS = {
  SADD = 'set', SREM = 'set', LPUSH = 'list', RPUSH = 'list', ZADD = 'zset', ZREM = 'zset', ZINCRBY = 'zset',
}
for name, kind in pairs(KINDS) do
  foresee[name] = function(number)
    local _, why = of_kind(number, kind)
    return why
  end
end
