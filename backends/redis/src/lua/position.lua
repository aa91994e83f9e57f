-- How many pending ids are looked at for what is settled ahead.
local HOLES_MAX = 64

-- What is settled up to the top of a position but for its holes, as text: all of it, or as much as fits, with the id below
-- the first hole that did not fit as the top.
local function ahead_text(position, bytes_max)
  local holes, top = position.holes or {}, position.top
  local last, size = 0, 0
  for i = 1, #holes do
    size = size + #holes[i] + 1
    -- 43 bytes are " >" and the longest id.
    if size + 43 > bytes_max then
      top = previous(holes[i])
      break
    end
    last = i
  end
  -- The top itself must be settled: where holes stand side by side, it is not.
  while last > 0 and compare_ids(holes[last], top) >= 0 do
    top = previous(holes[last])
    last = last - 1
  end
  if last == 0 then return '' end
  return table.concat(holes, ' ', 1, last) .. ' >' .. top
end

-- Where a group stands that has nothing pending. `acked`: the greatest of the asked ids that was pending until now.
local function drained(stream, group, acked, greatest, count)
  if acked and not count then return { watermark = acked, drained = true } end
  local info = group_info(stream, group)
  local delivered = info['last-delivered-id']
  -- All that was delivered is acked. Where nobody asked to count, what was asked is proof enough.
  local watermark = delivered
  if not count and greatest and compare_ids(greatest, delivered) < 0 then watermark = greatest end
  local ordinal
  local read = info['entries-read']
  -- The server's count belongs to the last delivered id and to no other.
  if count and read and read >= 0 and watermark == delivered then ordinal = text(read) end
  return { watermark = watermark, ordinal = ordinal, drained = true }
end

-- Acks ARGV[first..], which ascend, and returns how many were pending and how far the group then is settled: nil where the
-- group is gone. The third value is an error, before anything was changed. `count`: true, or 'drained' for only where nothing is
-- pending. `done`: how many of them were acked already, and the greatest, which was pending.
local function ack(stream, group, first, count, done)
  local last, acked_id = #ARGV, done and done.last
  -- Which of the ids were delivered shows only before the ack. Normally the first look finds it.
  for i = done and 0 or last, first, -1 do
    local found = redis.pcall('XPENDING', stream, group, ARGV[i], ARGV[i], 1)
    if found.err then
      if found.err:find('NOGROUP', 1, true) then return 0 end
      return nil, nil, found
    end
    if #found > 0 then
      acked_id = ARGV[i]
      break
    end
  end
  local acked = done and done.acked or xack(stream, group, first)
  local greatest = last >= first and ARGV[last]
  local pending = redis.pcall('XPENDING', stream, group, '-', '+', 1)
  if pending.err then
    if pending.err:find('NOGROUP', 1, true) then return 0 end
    return nil, nil, pending
  end
  if #pending == 0 then return acked, drained(stream, group, acked_id, greatest, count) end
  local lowest = pending[1][1]
  -- Where what was asked lies below all that is pending, the watermark says it all. What others have settled ahead they have
  -- said; where somebody counts, which is now and then, it is looked at again. A look costs as much as some hundred acks.
  if greatest and count ~= true and compare_ids(greatest, lowest) < 0 then
    return acked, { watermark = previous(lowest) }
  end
  pending = redis.call('XPENDING', stream, group, '-', '+', HOLES_MAX)
  local holes = {}
  for i, entry in ipairs(pending) do holes[i] = entry[1] end
  -- All below a pending id was delivered. Above the last one that is known, only what was acked now is.
  local top = holes[#holes]
  if #holes < HOLES_MAX and acked_id and compare_ids(acked_id, top) > 0 then top = acked_id end
  return acked, { watermark = previous(holes[1]), holes = holes, top = top }
end
