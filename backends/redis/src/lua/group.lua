-- Acks ARGV[first..], which ascend, in the group of the stream KEYS[4], and advances the record to where the group then
-- stands. Returns what to answer, which may be an error before anything was changed, and the watermark that is stored then,
-- if there is a group.
local function settle_in_group(record, group, first, count, ahead_max, owner)
  local acked, position, err = ack(KEYS[4], group, first, count, ahead_max)
  if err then return err end
  if not position then return { 'ok', acked } end
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
