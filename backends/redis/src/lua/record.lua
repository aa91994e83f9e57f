-- The checkpoint record: KEYS[1] is the hash, KEYS[2] the set of groups that have one, KEYS[3] the sorted set of what
-- transactions have settled above the watermark.
local VERSION = '1'

local function is_name(name)
  if #name <= 512 and not name:find('[^\32-\126]') then return true end
  if #name > 512 or name:find('%c') or name:find('\194[\128-\159]') then return false end
  -- What is left after all that is UTF-8 has been taken out is not.
  local rest = name:gsub('[\240-\244][\128-\191][\128-\191][\128-\191]', '')
  rest = rest:gsub('[\224-\239][\128-\191][\128-\191]', ''):gsub('[\194-\223][\128-\191]', '')
  return not rest:find('[\128-\255]')
end

-- The settled-ahead text with every id in full, so that equal sets are equal text, and its top. nil if it cannot be read.
local function read_ahead(encoded)
  if encoded == '' then return '' end
  local holes, top = encoded:match('^(.*) >(.*)$')
  if not holes then return nil end
  local last_ms
  local function id(token)
    local plus, rest = token:match('^(%+?)(.*)$')
    local ms, seq = parts(rest)
    if not ms then return nil end
    if plus == '+' then ms = last_ms and add(last_ms, ms) end
    last_ms = ms
    return ms and ms .. '-' .. seq
  end
  local runs, before = {}, nil
  for token in (holes .. ' '):gmatch('([^ ]*) ') do
    local from, to = token:match('^(.-)%.%.(.*)$')
    local first = id(from or token)
    local last = first and (to and to ~= '' and id(to) or (not to or to == '') and first)
    if not last or compare_ids(first, last) > 0 then return nil end
    if before and compare_ids(before, first) >= 0 then return nil end
    before = last
    runs[#runs + 1] = first == last and first or first .. '..' .. last
  end
  top = id(top)
  if not top or compare_ids(before, top) >= 0 then return nil end
  return table.concat(runs, ' ') .. ' >' .. top, top
end

-- Completes a record from its texts: false if one of them cannot be read.
local function complete(r)
  local function optional(value) return value == '' and '' or u64(value) end
  r.epoch, r.updated_at = u64(r.epoch), u64(r.updated_at)
  r.ordinal, r.lease_until = optional(r.ordinal), optional(r.lease_until)
  r.full, r.top = read_ahead(r.ahead)
  if not (r.epoch and r.updated_at and r.ordinal and r.lease_until and r.full) then return false end
  if #r.incarnation > 64 or r.incarnation:find('[^\33-\126]') then return false end
  if not (is_name(r.owner) and is_name(r.lease_owner) and is_name(r.reason)) then return false end
  if #r.reason > 128 or (r.paused ~= '' and r.paused ~= '1') then return false end
  -- Who owned a subscription but never advanced it left a record without a position.
  if r.watermark == '' then return r.ahead == '' and r.ordinal == '' end
  local ms, seq = parts(r.watermark)
  r.watermark = ms and ms .. '-' .. seq
  return ms ~= nil
end

local NAMES = {
  'watermark', 'ahead', 'ordinal', 'incarnation', 'epoch', 'owner', 'lease_until', 'lease_owner', 'updated_at',
  'paused', 'reason',
}

-- The record, or nil if there is none, or nil and what to answer if it cannot be read. All that may fail does so here,
-- before anything is written: there is no rollback.
local function load_record()
  local kind = redis.call('TYPE', KEYS[2]).ok
  local raw = redis.pcall('HGETALL', KEYS[1])
  if raw.err or (kind ~= 'none' and kind ~= 'set') then return nil, { 'corrupt' } end
  if #raw == 0 then return nil end
  local stored = fields(raw)
  local record = {}
  for _, name in ipairs(NAMES) do record[name] = stored[name] or '' end
  if u64(stored.v or '') ~= VERSION or not complete(record) then return nil, { 'corrupt', raw } end
  return record
end

local function new_record(time)
  return {
    watermark = '', ahead = '', full = '', ordinal = '', incarnation = '', epoch = '0', owner = '',
    lease_until = '0', lease_owner = '', updated_at = text(time), paused = '', reason = '',
  }
end

local function write_record(record, group)
  -- A command that frees memory comes first: servers without script flags let the rest through at the memory limit then.
  redis.call('HDEL', KEYS[1], '')
  local list = { 'v', VERSION }
  for _, name in ipairs(NAMES) do
    list[#list + 1] = name
    list[#list + 1] = record[name]
  end
  redis.call('HSET', KEYS[1], unpack(list))
  redis.call('SADD', KEYS[2], group)
end

local function lease_stands(record, time)
  return record ~= nil and record.lease_until ~= '' and compare(record.lease_until, text(time)) > 0
end

-- What to answer if the caller's epoch is not the stored one. Which of the two is higher is for the caller to say.
local function check_epoch(record, epoch)
  local stored = record and record.epoch or '0'
  if stored ~= epoch then return { 'fenced', stored } end
end

-- Keeps what the record says is settled ahead beyond the new position. Where no hole is left below, the watermark jumps.
local function keep_ahead(record, new)
  if not record.top or compare_ids(record.top, new.watermark) <= 0 then return end
  if new.top and compare_ids(new.top, record.top) >= 0 then return end
  local kept = {}
  for token in record.full:match('^(.*) >'):gmatch('[^ ]+') do
    local from, to = token:match('^(.-)%.%.(.*)$')
    local first, last = from or token, to or token
    if compare_ids(last, new.watermark) > 0 then
      if compare_ids(first, new.watermark) <= 0 then first = following(new.watermark) end
      kept[#kept + 1] = first == last and first or first .. '..' .. last
    end
  end
  new.top = record.top
  if #kept == 0 then
    new.watermark, new.ordinal, new.ahead, new.top = record.top, '', '', nil
  else
    new.ahead = table.concat(kept, ' ') .. ' >' .. record.top
  end
  new.full = new.ahead
end

-- Forgets what transactions have settled up to the watermark. Without transactions there is nothing, and it is one look.
local function prune(watermark)
  if redis.call('TYPE', KEYS[3]).ok == 'zset' then
    redis.call('ZREMRANGEBYLEX', KEYS[3], '-', '[' .. padded(watermark))
  end
end

-- Merges a position into the record, by the rule of `Position::merged_into`, and writes it if that changed it.
local function advance_record(record, new, owner, group)
  local time = now()
  record = record or new_record(time)
  new.full, new.top = read_ahead(new.ahead)
  new.ordinal, new.incarnation = new.ordinal or '', new.incarnation or ''
  if record.watermark ~= '' then
    local order = compare_ids(new.watermark, record.watermark)
    if order == 0 and new.top ~= record.top then
      if not new.top then order = -1
      elseif not record.top then order = 1
      else order = compare_ids(new.top, record.top) end
    end
    if order < 0 then return false, record.watermark end
    if new.ordinal == '' and new.watermark == record.watermark then new.ordinal = record.ordinal end
    if new.incarnation == '' then new.incarnation = record.incarnation end
    keep_ahead(record, new)
    if new.watermark == record.watermark and new.full == record.full
      and new.ordinal == record.ordinal and new.incarnation == record.incarnation then
      return false, record.watermark
    end
  end
  for _, name in ipairs({ 'watermark', 'ahead', 'ordinal', 'incarnation' }) do record[name] = new[name] end
  record.owner, record.updated_at = owner, text(time)
  write_record(record, group)
  prune(record.watermark)
  return true, record.watermark
end
