//! Requests about dead letters and their answers. New options become new fields.

use crate::{ConsumerName, EntryId, Fields, StreamName, Subscription};

/// Move entries to the dead letters: each is appended there, and acked, in one atomic step.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuryLetters {
    /// Where the entries were to be handled.
    pub subscription: Subscription,
    /// The stream of the dead letters.
    pub into: StreamName,
    /// Shared: only what is pending for this consumer, and ack it. `None`, exclusive: there is no group.
    pub holder: Option<ConsumerName>,
    /// In order.
    pub letters: Vec<NewLetter>,
    /// So many letters with a key may lie there, of this subscription, before no more are [parked](NewLetter::parked).
    pub parked_max: u64,
}

/// A letter to append.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewLetter {
    /// The id of the original entry.
    pub id: EntryId,
    /// The fields of the letter: see [`Letter::to_fields`](crate::Letter::to_fields).
    pub fields: Fields,
    /// How many of them, the first ones, are those of the original entry.
    pub own: usize,
    /// The hash of its key: letters are counted by key.
    pub key: Option<u64>,
    /// Only if there are letters of its key.
    pub parked: bool,
}

impl NewLetter {
    /// A letter without a key.
    #[must_use]
    pub fn new(id: EntryId, fields: Fields, own: usize) -> Self {
        Self { id, fields, own, key: None, parked: false }
    }

    /// Counted under this key.
    #[must_use]
    pub fn with_key(mut self, key: Option<u64>) -> Self {
        self.key = key;
        self
    }

    /// Only if there are letters of its key.
    #[must_use]
    pub fn parked(mut self, parked: bool) -> Self {
        self.parked = parked;
        self
    }
}

impl BuryLetters {
    /// Moves these, which no group has pending.
    #[must_use]
    pub fn new(subscription: Subscription, into: StreamName, letters: Vec<NewLetter>) -> Self {
        Self { subscription, into, holder: None, letters, parked_max: u64::MAX }
    }

    /// Only what is pending for this consumer.
    #[must_use]
    pub fn held_by(mut self, holder: Option<ConsumerName>) -> Self {
        self.holder = holder;
        self
    }

    /// With at most so many letters that have a key.
    #[must_use]
    pub fn parked_max(mut self, letters: u64) -> Self {
        self.parked_max = letters;
        self
    }
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fate {
    /// It lies there, now or from an earlier call, and the entry is acked.
    Buried,
    /// It was to be parked, and there is no room: nothing was done.
    Full,
    /// The entry is not pending for the holder any more: nothing was done.
    NotHeld,
    /// It was to be parked, and there are no letters of its key any more: nothing was done.
    Unparked,
}

/// Ask which keys have dead letters.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadKeys {
    /// Where the entries were to be handled.
    pub subscription: Subscription,
    /// The stream of the dead letters.
    pub from: StreamName,
}

impl DeadKeys {
    /// Those of the subscription's letters in this stream.
    #[must_use]
    pub fn new(subscription: Subscription, from: StreamName) -> Self {
        Self { subscription, from }
    }
}

/// Take letters out of their stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Redrive {
    /// Where the entries were to be handled.
    pub subscription: Subscription,
    /// The stream of the dead letters.
    pub from: StreamName,
    /// Which, in order.
    pub letters: Vec<RedriveLetter>,
}

/// A letter to take out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedriveLetter {
    /// The id of the letter, in its own stream.
    pub letter: EntryId,
    /// The id of the original entry.
    pub id: EntryId,
    /// The hash of its key.
    pub key: Option<u64>,
    /// Append an entry of these fields to the subscription's stream.
    pub append: Option<Fields>,
}

impl RedriveLetter {
    /// Takes this letter out.
    #[must_use]
    pub fn new(letter: EntryId, id: EntryId, key: Option<u64>) -> Self {
        Self { letter, id, key, append: None }
    }

    /// Appends an entry of these fields to the subscription's stream.
    #[must_use]
    pub fn append(mut self, fields: Option<Fields>) -> Self {
        self.append = fields;
        self
    }
}

impl Redrive {
    /// Takes these letters out.
    #[must_use]
    pub fn new(subscription: Subscription, from: StreamName, letters: Vec<RedriveLetter>) -> Self {
        Self { subscription, from, letters }
    }
}

/// What became of a letter that was to be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Redriven {
    /// It is out, and an entry of this id was appended.
    Appended(EntryId),
    /// It is out.
    Dropped,
    /// It was not there: nothing was done.
    Gone,
}
