-- KEYS: checkpoint, groups, stream. ARGV: group, epoch, owner, whether to count, most bytes of the ahead text, ids in
-- ascending order.
local record, refusal = load_record()
refusal = refusal or check_epoch(record, ARGV[2])
if refusal then return refusal end
local acked, position, err = ack(KEYS[3], ARGV[1], 6, ARGV[4] == '1', tonumber(ARGV[5]))
if err then return err end
if not position then return { 'ok', acked } end
-- Nothing is pending, yet the acks before this one reached further: all up to there is settled then, unless the group was
-- set back meanwhile and has not delivered it again.
local top = record and record.top
if position.drained and top and compare_ids(top, position.watermark) > 0 then
  local delivered = group_info(KEYS[3], ARGV[1])['last-delivered-id']
  if compare_ids(delivered, top) >= 0 then position.watermark, position.ordinal = top, nil end
end
local answer = { 'ok', acked, position.watermark, position.ahead, position.ordinal or false }
advance_record(record, position, ARGV[3], ARGV[1])
return answer
