//! Requests about a group and their answers. New options become new fields.

use std::time::Duration;

use crate::{ConsumerName, Delivery, Entry, EntryId, Fields, Position, Subscription};

/// Create a group where it is absent, and move one that stands before `at` up to it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EnsureGroup {
    /// The subscription. Its stream is created empty if it is absent.
    pub subscription: Subscription,
    /// The group then delivers entries above this id.
    pub at: EntryId,
    /// How many entries were ever added up to `at`, if that is known exactly.
    pub ordinal: Option<u64>,
}

impl EnsureGroup {
    /// A group that delivers what is above the position's watermark.
    #[must_use]
    pub fn new(subscription: Subscription, position: &Position) -> Self {
        Self { subscription, at: position.watermark, ordinal: position.ordinal }
    }
}

/// Read entries that no consumer of the group has received, and take them as pending.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReadGroup {
    /// The subscription.
    pub subscription: Subscription,
    /// Who receives them.
    pub consumer: ConsumerName,
    /// At most this many entries; at least 1.
    pub limit: usize,
    /// How long to wait for one if there is none. `None`: do not wait.
    pub block: Option<Duration>,
}

impl ReadGroup {
    /// Up to `limit` new entries, without waiting.
    #[must_use]
    pub fn new(subscription: Subscription, consumer: ConsumerName, limit: usize) -> Self {
        Self { subscription, consumer, limit, block: None }
    }

    /// Waits this long for the first one.
    #[must_use]
    pub fn block(mut self, wait: Duration) -> Self {
        self.block = Some(wait);
        self
    }
}

/// Read again what is pending for this consumer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReadPending {
    /// The subscription.
    pub subscription: Subscription,
    /// Whose entries.
    pub consumer: ConsumerName,
    /// Only entries above this id. [`EntryId::MAX`] yields nothing.
    pub after: EntryId,
    /// At most this many; at least 1.
    pub limit: usize,
}

impl ReadPending {
    /// Up to `limit` of the consumer's pending entries above `after`.
    #[must_use]
    pub fn new(subscription: Subscription, consumer: ConsumerName, after: EntryId, limit: usize) -> Self {
        Self { subscription, consumer, after, limit }
    }
}

/// A pending entry, which may have left the stream meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingEntry {
    /// Its id.
    pub id: EntryId,
    /// How often it was delivered, this time included.
    pub deliveries: u64,
    /// Its fields; `None` if it was trimmed or deleted.
    pub fields: Option<Fields>,
}

impl PendingEntry {
    /// A pending entry.
    #[must_use]
    pub fn new(id: EntryId, deliveries: u64, fields: Option<Fields>) -> Self {
        Self { id, deliveries, fields }
    }

    /// The delivery, or the id of an entry that is gone.
    ///
    /// # Errors
    ///
    /// The id, if the entry left the stream.
    pub fn into_delivery(self) -> Result<Delivery, EntryId> {
        let fields = self.fields.ok_or(self.id)?;
        Ok(Delivery::new(Entry::new(self.id, fields), self.deliveries))
    }
}

/// Tells one process from another that uses the same consumer name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Show that a consumer lives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Heartbeat {
    /// The subscription.
    pub subscription: Subscription,
    /// Who lives.
    pub consumer: ConsumerName,
    /// Which process that is.
    pub token: Token,
    /// How long the consumer counts as alive from now, by the server's clock.
    pub ttl: Duration,
}

impl Heartbeat {
    /// A sign of life for `ttl`.
    #[must_use]
    pub fn new(subscription: Subscription, consumer: ConsumerName, token: Token, ttl: Duration) -> Self {
        Self { subscription, consumer, token, ttl }
    }
}

/// The answer to a [`Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Beat {
    /// The last heartbeat of this process still stood: nothing can have been claimed from it.
    Unbroken,
    /// There was none that stood: the first one, or others may have claimed this consumer's entries meanwhile.
    Fresh,
}

/// Take over pending entries of consumers that are dead.
///
/// Dead is whose heartbeat has run out; who never kept one is judged by the idle time of each entry. The test and the
/// transfer are one atomic step.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Claim {
    /// The subscription.
    pub subscription: Subscription,
    /// Who receives them. Its own entries are never among them.
    pub consumer: ConsumerName,
    /// Where to go on: `0-0`, or [`Claimed::next`] of the call before.
    pub from: EntryId,
    /// At most this many; at least 1.
    pub limit: usize,
    /// The idle time after which entries of a consumer without heartbeat may be taken.
    pub min_idle: Duration,
    /// Where a look by whichever consumer of the group found nobody dead within this time before, the answer may be that there is
    /// nothing. For a backend whose looks take as long as a group has consumers, all of which look. Zero: it looks.
    pub unless_within: Duration,
}

impl Claim {
    /// Takes over up to `limit` entries, from the first on.
    #[must_use]
    pub fn new(subscription: Subscription, consumer: ConsumerName, limit: usize, min_idle: Duration) -> Self {
        Self { subscription, consumer, from: EntryId::ZERO, limit, min_idle, unless_within: Duration::ZERO }
    }

    /// Goes on from here.
    #[must_use]
    pub fn from(mut self, id: EntryId) -> Self {
        self.from = id;
        self
    }

    /// Takes another's look within this time for its own, if that found nobody dead.
    #[must_use]
    pub fn unless_within(mut self, time: Duration) -> Self {
        self.unless_within = time;
        self
    }
}

/// The answer to a [`Claim`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claimed {
    /// What now belongs to the caller. Entries that left the stream are among them, without fields; they stay pending, for
    /// the caller or for the dead, until they are acked.
    pub entries: Vec<PendingEntry>,
    /// Where to go on; `None` if the whole pending list was seen.
    pub next: Option<EntryId>,
}

impl Claimed {
    /// These entries, and where to go on.
    #[must_use]
    pub fn new(entries: Vec<PendingEntry>, next: Option<EntryId>) -> Self {
        Self { entries, next }
    }
}

/// Tell the server that deliveries are finished.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Ack {
    /// The subscription.
    pub subscription: Subscription,
    /// Which entries. May be empty, to learn the position.
    pub ids: Vec<EntryId>,
    /// Also find out the ordinal, which may cost the server more.
    pub count: bool,
}

impl Ack {
    /// Acks these.
    #[must_use]
    pub fn new(subscription: Subscription, ids: Vec<EntryId>) -> Self {
        Self { subscription, ids, count: false }
    }

    /// Also finds out the ordinal.
    #[must_use]
    pub fn count(mut self, count: bool) -> Self {
        self.count = count;
        self
    }
}

/// The answer to an [`Ack`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acked {
    /// How many were pending, and are not any more. The others had been acked before, by whomever.
    pub acked: u64,
    /// How far the group is settled, read after the ack and atomically with it. `None` if the group is gone.
    ///
    /// The predecessor of the smallest pending id. Where nothing is pending: the group's last delivered id, if the request
    /// asked to count or was empty. Otherwise, where that would cost the server more, the greatest of the acked ids that was
    /// pending until now or, if none was, the smaller of the last delivered id and the greatest id of the request; which may
    /// be below what is settled, never above. The ordinal is known at least where it was asked for, nothing is pending and
    /// the backend counts entries.
    pub position: Option<Position>,
}

impl Acked {
    /// This many were acked; the group then stood there.
    #[must_use]
    pub fn new(acked: u64, position: Option<Position>) -> Self {
        Self { acked, position }
    }
}

/// A consumer goes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Leave {
    /// The subscription.
    pub subscription: Subscription,
    /// Who goes.
    pub consumer: ConsumerName,
    /// Which process that is.
    pub token: Token,
}

impl Leave {
    /// This consumer goes.
    #[must_use]
    pub fn new(subscription: Subscription, consumer: ConsumerName, token: Token) -> Self {
        Self { subscription, consumer, token }
    }
}

/// The answer to a [`Leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// How many entries are still pending for the consumer. Others may claim them at once.
    pub pending: u64,
}

impl Left {
    /// This many are still pending.
    #[must_use]
    pub fn new(pending: u64) -> Self {
        Self { pending }
    }
}
