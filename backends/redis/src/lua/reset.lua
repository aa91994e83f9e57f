-- KEYS: checkpoint, groups, settled. ARGV: group, expected epoch or nothing, whether to force, watermark, ahead, ordinal,
-- incarnation.
local record, err = load_record()
if err then return err end
local time = now()
local epoch = record and record.epoch or '0'
if ARGV[2] ~= '' and ARGV[2] ~= epoch then return { 'fenced', epoch } end
if lease_stands(record, time) and ARGV[3] ~= '1' then
  return { 'held', record.lease_owner, text(tonumber(record.lease_until) - time) }
end
local new = new_record(time)
new.epoch = increment(epoch)
new.watermark, new.ahead, new.ordinal, new.incarnation = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
write_record(new, ARGV[1])
redis.call('DEL', KEYS[3])
return { 'ok', new.epoch }
