-- KEYS: checkpoint, groups, settled, stream. ARGV: group, epoch, owner, whether to count, most bytes of the ahead text, ids
-- in ascending order.
local record, refusal = load_record()
refusal = refusal or check_epoch(record, ARGV[2])
if refusal then return refusal end
local answer = settle_in_group(record, ARGV[1], 6, ARGV[4] == '1', tonumber(ARGV[5]), ARGV[3], done)
return answer
