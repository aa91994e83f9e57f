-- KEYS: checkpoint, groups, settled. ARGV: group, epoch, owner, watermark, ahead, ordinal, incarnation.
local record, err = load_record()
err = err or check_epoch(record, ARGV[2])
if err then return err end
local new = { watermark = ARGV[4], ahead = ARGV[5], ordinal = ARGV[6], incarnation = ARGV[7] }
local moved, watermark = advance_record(record, new, ARGV[3], ARGV[1])
return { 'ok', moved and 1 or 0, watermark }
