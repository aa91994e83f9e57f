-- The usual case of a settle, before the rest is defined, which alone takes longer than this: nothing is counted, nothing is
-- settled ahead, and the greatest id is pending. In any other case it leaves the rest to do, and says what it has acked. An ack
-- frees memory: servers without script flags let the rest through at the memory limit then.
local done
local RECORD = {
  'v', 'epoch', 'ahead', 'paused', 'watermark', 'ordinal', 'lease_until', 'updated_at', 'incarnation', 'owner',
  'lease_owner', 'reason',
}
local function usual()
  local last = ARGV[#ARGV]
  if #ARGV < 6 or ARGV[4] == '1' then return end
  local r = redis.pcall('HMGET', KEYS[1], unpack(RECORD))
  -- What is not plain is looked at by who can tell whether it is corrupt.
  if r.err or r[1] ~= '1' or r[2] ~= ARGV[2] or r[3] ~= '' or r[4] ~= '' or not (r[5] and parts(r[5])) then return end
  for i = 6, #RECORD do
    if not r[i] or #r[i] > 64 or r[i]:find('[^\33-\126]') then return end
  end
  if #r[6] > 19 or #r[7] > 19 or #r[8] > 19 or r[8] == '' or (r[6] .. r[7] .. r[8]):find('%D') then return end
  if redis.call('TYPE', KEYS[2]).ok ~= 'set' or redis.call('TYPE', KEYS[3]).ok ~= 'none' then return end
  local found = redis.pcall('XPENDING', KEYS[4], ARGV[1], last, last, 1)
  if found.err or #found == 0 then return end
  done = { acked = xack(KEYS[4], ARGV[1], 6), last = last }
  local lowest = redis.call('XPENDING', KEYS[4], ARGV[1], '-', '+', 1)[1]
  if lowest and compare_ids(last, lowest[1]) > 0 then return end
  local watermark = lowest and previous(lowest[1]) or last
  if compare_ids(watermark, r[5]) <= 0 then return end
  redis.call(
    'HSET', KEYS[1], 'watermark', watermark, 'ordinal', '', 'owner', ARGV[3], 'updated_at', text(now())
  )
  redis.call('SADD', KEYS[2], ARGV[1])
  return { 'ok', done.acked, watermark, '', false }
end
local settled = usual()
if settled then return settled end
