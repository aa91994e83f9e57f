-- Adds what the record has as settled ahead to where a group stands: one that was created anew has entries pending again
-- that are settled. A record with runs of holes was written by an owner, without a group, and is left as it is.
local function join(position, record)
  local holes = position.holes
  if not holes or not record or not record.top or record.full:find('..', 1, true) then return end
  local open, known = {}, {}
  for id in record.full:match('^(.*) >'):gmatch('[^ ]+') do
    open[id] = true
    known[#known + 1] = id
  end
  local kept = {}
  for _, id in ipairs(holes) do
    if open[id] or compare_ids(id, record.top) > 0 then kept[#kept + 1] = id end
  end
  if compare_ids(record.top, position.top) > 0 then
    for _, id in ipairs(known) do
      if compare_ids(id, position.top) > 0 then kept[#kept + 1] = id end
    end
    position.top = record.top
  end
  position.holes = kept
  position.watermark = kept[1] and previous(kept[1]) or position.top
end

-- Acks ARGV[first..], which ascend, in the group of the stream KEYS[4], and advances the record to where the group then
-- stands. Returns what to answer, which may be an error before anything was changed, and the watermark that is stored then,
-- if there is a group.
-- `done`: as for `ack`.
local function settle_in_group(record, group, first, count, ahead_max, owner, done)
  local acked, position, err = ack(KEYS[4], group, first, count, done)
  if err then return err end
  if not position then return { 'ok', acked } end
  join(position, record)
  position.ahead = ahead_text(position, ahead_max)
  -- Nothing is pending, yet the acks before this one reached further: all up to there is settled then, unless the group was
  -- set back meanwhile and has not delivered it again.
  local top = record and record.top
  if position.drained and top and compare_ids(top, position.watermark) > 0 then
    local delivered = group_info(KEYS[4], group)['last-delivered-id']
    if compare_ids(delivered, top) >= 0 then position.watermark, position.ordinal = top, nil end
  end
  local answer = { 'ok', acked, position.watermark, position.ahead, position.ordinal or false }
  local _, watermark = advance_record(record, position, owner, group)
  return answer, watermark
end
