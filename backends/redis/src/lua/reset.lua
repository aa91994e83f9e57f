-- KEYS: checkpoint, groups, settled, attempts. ARGV: group, expected epoch or nothing, whether to force, whether there is a
-- position (else it stays where it is), watermark, ahead, ordinal, incarnation, whether it is paused or nothing to leave it,
-- reason, expected watermark or nothing. Returns the new epoch or, where the watermark is another one, nothing and that.
local record, err = load_record()
if err then return err end
local time = now()
record = record or new_record(time)
if ARGV[2] ~= '' and ARGV[2] ~= record.epoch then return { 'fenced', record.epoch } end
local watermark = record.watermark == '' and '0-0' or record.watermark
if ARGV[11] ~= '' and ARGV[11] ~= watermark then return { 'ok', '', watermark } end
if lease_stands(record, time) and ARGV[3] ~= '1' then
  return { 'held', record.lease_owner, text(tonumber(record.lease_until) - time) }
end
local moves = ARGV[4] == '1'
if moves or record.watermark == '' then
  record.watermark, record.ahead, record.ordinal, record.incarnation = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
  record.owner, record.updated_at = '', text(time)
end
record.epoch = increment(record.epoch)
record.lease_until, record.lease_owner = '0', ''
if ARGV[9] ~= '' then record.paused = ARGV[9] == '1' and '1' or '' end
record.reason = ARGV[10]
write_record(record, ARGV[1])
if moves then redis.call('DEL', KEYS[3], KEYS[4]) end
return { 'ok', record.epoch }
