-- KEYS: checkpoint, groups, settled. ARGV: ids in ascending order. Returns those that are settled.
local record, refusal = load_record()
if refusal then return refusal end
local found, unreadable = settled_before(record, 1, { 'ok' })
return unreadable or found
