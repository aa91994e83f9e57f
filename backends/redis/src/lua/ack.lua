-- KEYS: stream. ARGV: group, whether to count, most bytes of the ahead text, ids in ascending order.
local acked, position, err = ack(KEYS[1], ARGV[1], 4, ARGV[2] == '1')
if err then return err end
if not position then return { acked } end
return { acked, position.watermark, ahead_text(position, tonumber(ARGV[3])), position.ordinal or false }
