-- Lengthens or ends a lease. KEYS: checkpoint, groups, settled. ARGV: group, epoch, time to live in ms, or nothing to end it.
local record, err = load_record()
if err then return err end
if not record or record.epoch ~= ARGV[2] then return { 'fenced', record and record.epoch or '0' } end
record.lease_until = ARGV[3] == '' and '0' or text(now() + tonumber(ARGV[3]))
write_record(record, ARGV[1])
return { 'ok' }
