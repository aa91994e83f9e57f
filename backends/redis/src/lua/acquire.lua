-- KEYS: checkpoint, groups, settled. ARGV: group, owner, time to live in ms.
local record, err = load_record()
if err then return err end
local time = now()
if lease_stands(record, time) and record.lease_owner ~= ARGV[2] then
  return { 'held', record.lease_owner, text(tonumber(record.lease_until) - time) }
end
record = record or new_record(time)
record.epoch = increment(record.epoch)
record.lease_owner, record.lease_until = ARGV[2], text(time + tonumber(ARGV[3]))
write_record(record, ARGV[1])
if record.watermark == '' then return { 'ok', record.epoch } end
return { 'ok', record.epoch, record.watermark, record.ahead, record.ordinal, record.incarnation }
