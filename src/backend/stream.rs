//! The trait of a stream store.

use std::fmt;

use async_trait::async_trait;

use super::{
    Ack, Acked, Append, Beat, BuryLetters, Claim, Claimed, DeadKeys, EnsureGroup, Fate, Heartbeat, Inspect,
    Leave, Left, PendingEntry, Read, ReadGroup, ReadPending, Redrive, Redriven, Removal, StreamCapabilities,
    StreamState, Trim,
};
use crate::{Delivery, Entry, EntryId, Result};

/// A store of streams, with groups.
///
/// ```
/// use highwater::{ConsumerName, EntryId, Fields, Memory, Position, Subscription, backend::*};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let (stream, orders, me) = (Memory::new(), Subscription::new("orders", "billing")?, ConsumerName::unique());
/// let entry = NewEntry::new(Fields::from_iter([("kind", "order")])).with_id(EntryId::new(7, 0));
/// stream.append(&Append::new(orders.stream.clone(), vec![entry])).await?;
///
/// stream.ensure_group(&EnsureGroup::new(orders.clone(), &Position::default())).await?;
/// let delivered = stream.read_group(&ReadGroup::new(orders.clone(), me, 10)).await?;
/// assert_eq!(delivered[0].id(), EntryId::new(7, 0));
///
/// let acked = stream.ack(&Ack::new(orders, vec![delivered[0].id()])).await?;
/// let position = acked.position.expect("the group is there");
/// assert_eq!(position.watermark, EntryId::new(7, 0), "how far the group is settled now");
/// # Ok(())
/// # }
/// ```
///
/// # For implementers
///
/// 1. **One attempt.** A method tries once. Repeating, timing out and counting are layers.
/// 2. **Honest outcome.** An error whose effect may have taken place carries [`Outcome::Unknown`](crate::Outcome::Unknown).
/// 3. **Cancel safety.** Any future may be dropped at any await. The effect then may or may not take place, entirely or not
///    at all, and later calls are not disturbed: a connection with a reply outstanding must not be used again.
/// 4. **Shared.** Calls may run side by side. A call that blocks must not hold up any other.
/// 5. **Bytes.** Fields come back as they were appended: order, duplicates, empty and non-UTF-8 names and values.
/// 6. **Typed errors.** A missing group or stream is [`Missing`](crate::ErrorKind::Missing) and a key that holds something
///    else is [`Invalid`](crate::ErrorKind::Invalid), unless the method says otherwise; a server that cannot answer is
///    [`Unavailable`](crate::ErrorKind::Unavailable).
///
/// The methods have no default: a wrapper that forgot one would lose it silently. Run
/// `stream_conformance!` over the result (feature `conformance`).
#[async_trait]
pub trait StreamBackend: fmt::Debug + Send + Sync + 'static {
    /// The short name of the backend, for logs and errors: `redis`, `sqlite`, `memory`.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> StreamCapabilities;

    /// Appends entries in order and returns an id, or an error, for each. Creates the stream if it is absent.
    ///
    /// Entries are appended one by one: a failed one does not take back those before it. After one of unknown outcome, those
    /// behind it are of unknown outcome too.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for an id that is not above the last one, or an entry without fields. The
    /// outer error stands for all entries alike.
    ///
    /// # Cancel safety
    ///
    /// A prefix of the entries may have been appended.
    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>>;

    /// Removes the oldest entries and returns how many. A missing stream has none.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn trim(&self, request: &Trim) -> Result<u64>;

    /// The state of a stream and a group, of one instant. `None` if there is no stream.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>>;

    /// Entries after an id, in order. Empty if there is none, or no stream.
    ///
    /// A blocked read may return early and empty.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing. Within an instant the server knows that nobody waits.
    async fn read(&self, request: &Read) -> Result<Vec<Entry>>;

    /// Creates the group at an id, or moves one that stands before it up to it. Never moves a group back, never drops
    /// pending entries. Returns whether the group was created.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool>;

    /// Entries that no consumer of the group has received, in order; they become pending for this one. Empty if there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`Missing`](crate::ErrorKind::Missing) if the group or the stream is not there, also if it goes while blocked.
    /// [`Outcome::Unknown`](crate::Outcome::Unknown): entries may have become pending that nobody has seen; find them with
    /// [`read_pending`](Self::read_pending).
    ///
    /// # Cancel safety
    ///
    /// Entries may become pending that nobody has seen: find them with [`read_pending`](Self::read_pending).
    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>>;

    /// What is pending for this consumer, in order of ids. Counts as another delivery of each, where the server counts.
    ///
    /// # Errors
    ///
    /// [`Missing`](crate::ErrorKind::Missing) if the group or the stream is not there.
    ///
    /// # Cancel safety
    ///
    /// Safe, but the delivery counts may have grown.
    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>>;

    /// Takes over pending entries of dead consumers: see [`Claim`]. Each counts as one more delivery. A dead consumer that
    /// has nothing pending is removed.
    ///
    /// # Errors
    ///
    /// [`Missing`](crate::ErrorKind::Missing) if the group or the stream is not there.
    ///
    /// # Cancel safety
    ///
    /// Entries may have become pending for this consumer unseen: find them with [`read_pending`](Self::read_pending).
    async fn claim(&self, request: &Claim) -> Result<Claimed>;

    /// Shows that a consumer lives, and says whether it did all the time.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) if another live process uses the name; then nothing was changed.
    /// [`Missing`](crate::ErrorKind::Missing) where the backend keeps heartbeats in the group, and the group is not there.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat>;

    /// Acks entries, and reads how far the group then is settled, in one atomic step.
    ///
    /// Idempotent. Whoever holds the entry: an ack says that it was handled, which does not become untrue.
    ///
    /// # Errors
    ///
    /// Those of every method. A missing group or stream is no error: nothing is acked, and the position is `None`.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn ack(&self, request: &Ack) -> Result<Acked>;

    /// Ends a consumer's heartbeat, and removes the consumer if nothing is pending for it. What is pending may be claimed at
    /// once. Does nothing if another process has taken the name since. A missing group is no error.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn leave(&self, request: &Leave) -> Result<Left>;

    /// Moves entries to the dead letters and acks them: all of it, for one letter, is one atomic step. Returns the fate of each, in
    /// the order of the request.
    ///
    /// Idempotent: a letter that lies there, with the same fields of the original entry, is not appended again, and its entry is
    /// acked. That of another entry which had the same id, in a stream that was deleted since, does not count.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if the dead letters are the stream itself, or the server cannot do it in one step, as
    /// in a cluster where the two streams lie in different hash slots. A missing group is no error: nothing is pending then.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place for the first letters, each entirely. Repeating it is harmless.
    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>>;

    /// The hashes of the keys of which there are dead letters, and how many, in ascending order. Letters that were trimmed do not
    /// keep a key here: it goes when its last letter is gone.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>>;

    /// Takes letters out of their stream and, if asked, appends their entries to the subscription's stream again; both are
    /// one atomic step for one letter. Returns what became of each, in the order of the request. The letters' stream stays,
    /// though it may be empty.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) as of [`dead_letter`](Self::dead_letter).
    ///
    /// # Cancel safety
    ///
    /// It may have taken place for the first letters, each entirely. Repeated, they are [`Gone`](Redriven::Gone).
    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>>;

    /// Removes entries, a group or a stream for good, and returns how many of them were there.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn remove(&self, request: &Removal) -> Result<u64>;

    /// Closes connections. Later calls fail with [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the backend closes what is left.
    async fn close(&self);
}
