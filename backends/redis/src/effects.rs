//! What a handler writes in the same Redis: a buffer of commands, none of which can fail once the server has looked at it.

use std::{collections::HashMap, fmt, ops::Range, time::Duration};

use bytes::Bytes;
use highwater::{EntryId, Error, ErrorKind, Fields, Result, StreamName, clock::millis};

use crate::{
    client::Arguments,
    commands::Push,
    keys::{self, OURS},
    packed::Packed,
    stream::NUMBER_MAX,
};

/// Most arguments of all effects together. A server takes a million in one command.
const ARGUMENTS_MAX: usize = 500_000;
/// Most bytes of all effects together: below what a server takes for a value, an entry and a command.
const BYTES_MAX: usize = 256 << 20;
/// Most fields of an entry: what Lua can hand to a command.
const FIELDS_MAX: usize = 1000;

/// What a handler writes in the Redis that holds the checkpoint: it takes place together with the checkpoint, or not at all.
///
/// Nothing is sent before the commit, which is one script. Redis does not take back what a script did before it failed, so
/// the script first looks at every effect: that each key is absent or of the right type, as the effects before have left it,
/// that what is incremented is an integer and stays one of 64 bits, that ids of entries rise, that the user may run every
/// command. What cannot be looked at beforehand is not offered. If one effect is refused, none takes place.
///
/// In Redis Cluster every key must lie in the hash slot of the stream: [`key_beside`](crate::key_beside) makes such keys.
/// Neither the stream itself nor a key that begins with `highwater:{` may be written.
///
/// ```no_run
/// use highwater::{ConsumerName, EntryId, Epoch, Subscription, backend::{Settlement, TransactionalCheckpoint}};
/// use highwater_redis::{Redis, key_beside};
///
/// # async fn example() -> highwater::Result<()> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let orders = Subscription::new("orders", "billing")?;
/// let totals = key_beside(&orders.stream, "totals");
/// let mut effects = redis.begin().await?;
/// effects.hash_incr_by(&totals, "alice", 250).list_push_right(key_beside(&orders.stream, "paid"), "order 7");
/// let settlement = Settlement::each(orders, Epoch(0), ConsumerName::unique(), vec![EntryId::new(7, 0)]);
/// println!("{:?}", redis.commit(effects, &settlement).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Effects {
    keys: Vec<String>,
    numbers: HashMap<String, usize>,
    effects: Vec<Effect>,
    arguments: Vec<Bytes>,
    bytes: usize,
    /// The first one that no server needs to look at.
    refused: Option<Error>,
}

struct Effect {
    name: &'static str,
    key: usize,
    arguments: Range<usize>,
}

impl Effects {
    /// Sets a string, whatever the key held, for ever.
    pub fn set(&mut self, key: impl Into<String>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push("SET", key, &[value.as_ref()])
    }

    /// Sets a string, whatever the key held, for this long: to the millisecond, and at least one.
    pub fn set_for(&mut self, key: impl Into<String>, value: impl AsRef<[u8]>, ttl: Duration) -> &mut Self {
        self.push("SET", key, &[value.as_ref(), b"PX", milliseconds(ttl).as_bytes()])
    }

    /// Deletes a key, whatever it holds.
    pub fn del(&mut self, key: impl Into<String>) -> &mut Self {
        self.push("DEL", key, &[])
    }

    /// Lets a key live for this long from now on, if it is there: to the millisecond, and at least one.
    pub fn expire(&mut self, key: impl Into<String>, ttl: Duration) -> &mut Self {
        self.push("PEXPIRE", key, &[milliseconds(ttl).as_bytes()])
    }

    /// Adds to a string that is an integer, or absent.
    pub fn incr_by(&mut self, key: impl Into<String>, by: i64) -> &mut Self {
        self.push("INCRBY", key, &[by.to_string().as_bytes()])
    }

    /// Sets a field of a hash.
    pub fn hash_set(
        &mut self,
        key: impl Into<String>,
        field: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.push("HSET", key, &[field.as_ref(), value.as_ref()])
    }

    /// Adds to a field of a hash that is an integer, or absent.
    pub fn hash_incr_by(&mut self, key: impl Into<String>, field: impl AsRef<[u8]>, by: i64) -> &mut Self {
        self.push("HINCRBY", key, &[field.as_ref(), by.to_string().as_bytes()])
    }

    /// Removes a field of a hash.
    pub fn hash_del(&mut self, key: impl Into<String>, field: impl AsRef<[u8]>) -> &mut Self {
        self.push("HDEL", key, &[field.as_ref()])
    }

    /// Adds a member to a set.
    pub fn set_add(&mut self, key: impl Into<String>, member: impl AsRef<[u8]>) -> &mut Self {
        self.push("SADD", key, &[member.as_ref()])
    }

    /// Removes a member of a set.
    pub fn set_remove(&mut self, key: impl Into<String>, member: impl AsRef<[u8]>) -> &mut Self {
        self.push("SREM", key, &[member.as_ref()])
    }

    /// Gives a member of a sorted set this score, which must be finite.
    pub fn sorted_add(&mut self, key: impl Into<String>, member: impl AsRef<[u8]>, score: f64) -> &mut Self {
        self.finite(score).push("ZADD", key, &[format!("{score:?}").as_bytes(), member.as_ref()])
    }

    /// Adds to the score of a member of a sorted set. What is added must be finite.
    pub fn sorted_incr_by(&mut self, key: impl Into<String>, member: impl AsRef<[u8]>, by: f64) -> &mut Self {
        // Finite numbers may sum up to an infinite one, and never to none, which the server would refuse.
        self.finite(by).push("ZINCRBY", key, &[format!("{by:?}").as_bytes(), member.as_ref()])
    }

    /// Removes a member of a sorted set.
    pub fn sorted_remove(&mut self, key: impl Into<String>, member: impl AsRef<[u8]>) -> &mut Self {
        self.push("ZREM", key, &[member.as_ref()])
    }

    /// Adds to the left end of a list.
    pub fn list_push_left(&mut self, key: impl Into<String>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push("LPUSH", key, &[value.as_ref()])
    }

    /// Adds to the right end of a list.
    pub fn list_push_right(&mut self, key: impl Into<String>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push("RPUSH", key, &[value.as_ref()])
    }

    /// Appends an entry to another stream, under an id that the server chooses.
    pub fn append(&mut self, stream: impl Into<String>, fields: &Fields) -> &mut Self {
        self.append_at("*", stream.into(), fields)
    }

    /// Appends an entry to another stream, under this id, which must be above the last one of that stream.
    pub fn append_with_id(&mut self, stream: impl Into<String>, id: EntryId, fields: &Fields) -> &mut Self {
        self.append_at(&id.to_string(), stream.into(), fields)
    }

    /// How many effects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.effects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    fn append_at(&mut self, id: &str, stream: String, fields: &Fields) -> &mut Self {
        if fields.is_empty() || fields.len() > FIELDS_MAX {
            self.refuse(|| refusal("an entry must have 1 to 1000 fields").with("fields", fields.len()));
        }
        let pairs = fields.iter().flat_map(|(name, value)| [&**name, &**value]);
        let arguments: Vec<&[u8]> = std::iter::once(id.as_bytes()).chain(pairs).collect();
        self.push("XADD", stream, &arguments)
    }

    fn finite(&mut self, score: f64) -> &mut Self {
        if !score.is_finite() {
            self.refuse(|| refusal("a score must be finite").with("score", score));
        }
        self
    }

    fn push(&mut self, name: &'static str, key: impl Into<String>, arguments: &[&[u8]]) -> &mut Self {
        let key = key.into();
        self.bytes += key.len() + arguments.iter().map(|argument| argument.len()).sum::<usize>();
        if key.starts_with(OURS) {
            self.refuse(|| refusal("this key belongs to the checkpoints: use another one").with("key", &key));
        }
        // What follows would be refused with it, so that it takes no memory either.
        if self.bytes > BYTES_MAX
            || self.arguments.len() + arguments.len() + 3 * self.effects.len() > ARGUMENTS_MAX
        {
            self.refuse(|| {
                refusal("these are too many effects for one step: settle fewer entries at a time")
            });
        }
        if self.refused.is_some() {
            return self;
        }
        let number = *self.numbers.entry(key).or_insert_with_key(|key| {
            self.keys.push(key.clone());
            self.keys.len() - 1
        });
        let first = self.arguments.len();
        self.arguments.extend(arguments.iter().map(|argument| Bytes::copy_from_slice(argument)));
        self.effects.push(Effect { name, key: number, arguments: first..self.arguments.len() });
        self
    }

    fn refuse(&mut self, error: impl FnOnce() -> Error) {
        let number = self.effects.len() + 1;
        self.refused.get_or_insert_with(|| error().with("effect", number));
    }

    /// What is left for the server to look at.
    pub(crate) fn checked(mut self, stream: &StreamName) -> Result<Self> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        match self.numbers.get(stream.as_str()) {
            Some(_) => {
                Err(refusal("an effect must not write to the stream that is consumed: use another key")
                    .with("key", stream))
            }
            None => Ok(self),
        }
    }

    /// The keys, each once.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// The arguments of the script; the first key has this number there.
    pub(crate) fn push_to(&self, packed: &mut Packed, first_key: usize) {
        packed.push_number(self.effects.len() as u64);
        for effect in &self.effects {
            packed.arg(effect.name.as_bytes());
            packed.push_number((first_key + effect.key) as u64);
            packed.push_number(effect.arguments.len() as u64);
            for argument in &self.arguments[effect.arguments.clone()] {
                packed.arg(argument);
            }
        }
    }

    /// Why the server refuses one of them, counted from 1.
    pub(crate) fn refused_by_server(&self, number: usize, why: &[u8]) -> Error {
        let error = refusal(match why {
            b"type" => "the key holds another type of value: look at it, or use another key",
            b"integer" => {
                "what is to be incremented is no integer of 64 bits: look at it, or use another key"
            }
            b"overflow" => "the increment leaves the range of 64 bits",
            b"id" => "the id is not above the last one of the stream: leave it to the server",
            b"full" => "the stream has used its last id: go on with a new stream",
            _ => "the server cannot carry out this effect",
        });
        match self.effects.get(number.wrapping_sub(1)) {
            Some(effect) => {
                error.with("effect", number).with("command", effect.name).with("key", &self.keys[effect.key])
            }
            None => error,
        }
    }

    /// Why a cluster refuses the keys.
    pub(crate) fn in_other_slot(&self, stream: &StreamName) -> Option<Error> {
        let key = self.keys.iter().find(|key| !keys::is_beside(stream, key))?;
        Some(
            refusal("in a cluster every key must lie in the slot of the stream: make it by `key_beside`")
                .with("key", key),
        )
    }
}

/// The values may be anybody's secret.
impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("effects", &self.effects.len()).field("keys", &self.keys).finish()
    }
}

/// What a handler wrote cannot be committed.
fn refusal(message: &'static str) -> Error {
    Error::new(ErrorKind::Handler, message)
}

/// Servers refuse a time of zero, and add the time to the clock.
fn milliseconds(ttl: Duration) -> String {
    millis(ttl).clamp(1, NUMBER_MAX).to_string()
}
