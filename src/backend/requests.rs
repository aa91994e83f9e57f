//! Requests about a stream and their answers. New options become new fields.

use std::time::Duration;

use crate::{EntryId, Fields, Incarnation, StreamName, Subscription};

/// An entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEntry {
    /// The id, which must be above all before it; `None` lets the server choose, which is the usual way.
    pub id: Option<EntryId>,
    /// The fields, at least one.
    pub fields: Fields,
}

impl NewEntry {
    /// An entry whose id the server chooses.
    #[must_use]
    pub fn new(fields: Fields) -> Self {
        Self { id: None, fields }
    }

    /// With this id.
    #[must_use]
    pub fn with_id(mut self, id: EntryId) -> Self {
        self.id = Some(id);
        self
    }
}

/// Append entries, in order, in one round trip where the backend can.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Append {
    /// The stream; it is created if it is absent.
    pub stream: StreamName,
    /// What to append, at least one.
    pub entries: Vec<NewEntry>,
}

impl Append {
    /// Appends these to that stream.
    #[must_use]
    pub fn new(stream: StreamName, entries: Vec<NewEntry>) -> Self {
        Self { stream, entries }
    }
}

/// How much of a stream to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrimLimit {
    /// Remove entries below this id.
    Below(EntryId),
    /// Remove the oldest until this many are left.
    Len(u64),
}

/// Remove the oldest entries of a stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trim {
    /// The stream.
    pub stream: StreamName,
    /// What to keep.
    pub limit: TrimLimit,
    /// Whether the backend may keep somewhat more, where that is cheaper.
    pub approximate: bool,
    /// Entries from this id on are kept, whatever the limit says.
    pub keep_from: Option<EntryId>,
}

impl Trim {
    /// Trims to exactly this limit.
    #[must_use]
    pub fn new(stream: StreamName, limit: TrimLimit) -> Self {
        Self { stream, limit, approximate: false, keep_from: None }
    }

    /// Lets the backend keep somewhat more.
    #[must_use]
    pub fn approximate(mut self) -> Self {
        self.approximate = true;
        self
    }

    /// Keeps entries from this id on.
    #[must_use]
    pub fn keep_from(mut self, id: Option<EntryId>) -> Self {
        self.keep_from = id;
        self
    }
}

/// Ask for the state of a stream and, if named, of a group on it; all of one instant.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspect {
    /// The stream.
    pub stream: StreamName,
    /// The group, if it is of interest.
    pub group: Option<crate::GroupName>,
    /// Also count the consumers of the group that live, which may take as long as it has consumers.
    pub count_alive: bool,
}

impl Inspect {
    /// The state of the stream alone.
    #[must_use]
    pub fn stream(stream: StreamName) -> Self {
        Self { stream, group: None, count_alive: false }
    }

    /// The state of the stream and of the subscription's group.
    #[must_use]
    pub fn subscription(subscription: &Subscription) -> Self {
        let Subscription { stream, group } = subscription.clone();
        Self { stream, group: Some(group), count_alive: false }
    }

    /// Whether to count the consumers of the group that live.
    #[must_use]
    pub fn count_alive(mut self, count: bool) -> Self {
        self.count_alive = count;
        self
    }
}

/// A stream as it is at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamState {
    /// How many entries it holds.
    pub len: u64,
    /// The id of the first entry that it holds.
    pub first_id: Option<EntryId>,
    /// The last id that it gave out, also if that entry is gone. `0-0` if it never held one.
    pub last_id: EntryId,
    /// How many entries were ever added, if the server counts them.
    pub entries_added: Option<u64>,
    /// The name of this life of the stream, if the backend gives one.
    pub incarnation: Option<Incarnation>,
    /// The group that was asked for, if it exists.
    pub group: Option<GroupState>,
}

impl StreamState {
    /// A stream that ends at this id and holds this many entries; the rest unknown.
    #[must_use]
    pub fn new(last_id: EntryId, len: u64) -> Self {
        Self { len, first_id: None, last_id, entries_added: None, incarnation: None, group: None }
    }
}

/// A group as it is at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupState {
    /// The last id that was delivered to a consumer of the group.
    pub last_delivered: EntryId,
    /// How many entries were ever added up to that id, if the server knows.
    pub entries_read: Option<u64>,
    /// How many entries are pending.
    pub pending: u64,
    /// The smallest pending id.
    pub first_pending: Option<EntryId>,
    /// How many consumers keep a heartbeat that stands, if that was asked for.
    pub consumers_alive: Option<u64>,
}

impl GroupState {
    /// A group that has delivered up to this id, with nothing pending.
    #[must_use]
    pub fn new(last_delivered: EntryId) -> Self {
        Self { last_delivered, entries_read: None, pending: 0, first_pending: None, consumers_alive: None }
    }
}

/// Read entries after an id, outside of any group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Read {
    /// The stream.
    pub stream: StreamName,
    /// Only entries above this id.
    pub after: EntryId,
    /// At most this many entries; at least 1.
    pub limit: usize,
    /// How long to wait for one if there is none. `None`: do not wait.
    pub block: Option<Duration>,
}

impl Read {
    /// Up to `limit` entries after an id, without waiting.
    #[must_use]
    pub fn new(stream: StreamName, after: EntryId, limit: usize) -> Self {
        Self { stream, after, limit, block: None }
    }

    /// Waits this long for the first one.
    #[must_use]
    pub fn block(mut self, wait: Duration) -> Self {
        self.block = Some(wait);
        self
    }
}

/// Something to remove for good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removal {
    /// Single entries of a stream.
    Entries(StreamName, Vec<EntryId>),
    /// A group with its pending list and its consumers' heartbeats. The checkpoint stays.
    Group(Subscription),
    /// A stream with its groups. Checkpoints stay.
    Stream(StreamName),
}
