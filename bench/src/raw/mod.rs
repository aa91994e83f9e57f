//! The loops that one would write with a driver alone, and what the server can do at most.

mod fred;
mod limit;
#[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "peers are looked at for more"))]
mod look;
mod redis_rs;
mod sqlx;

pub use self::{
    fred::{seq as fred_seq, two_clients as fred_two},
    limit::{group as limit_group, read as limit_read},
    look::*,
    redis_rs::*,
    sqlx::read_postgres,
};

/// A checkpoint that only rises, as one would write it by hand.
const CHECKPOINT: &str = "
local function parts(id) local ms, seq = string.match(id, '^(%d+)%-(%d+)$') return tonumber(ms), tonumber(seq) end
local old = redis.call('GET', KEYS[1])
if old then
  local a, b = parts(old)
  local c, d = parts(ARGV[1])
  if c < a or (c == a and d <= b) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1";
