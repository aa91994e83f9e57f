//! The trait of a checkpoint store.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{LoadAttempts, NoteAttempts};
use crate::{
    Attempts, Checkpoint, ConsumerName, EntryId, Epoch, GroupName, Position, Result, StreamName,
    Subscription, checkpoint::check_reason,
};

/// Move a checkpoint forward.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Advance {
    /// Whose checkpoint.
    pub subscription: Subscription,
    /// The epoch that the caller holds: from [`Grant`], or of the checkpoint that it loaded (`0` if there was none).
    pub epoch: Epoch,
    /// How far the subscription is settled now.
    pub position: Position,
    /// Who writes it.
    pub owner: ConsumerName,
}

impl Advance {
    /// Moves the checkpoint to this position.
    #[must_use]
    pub fn new(subscription: Subscription, epoch: Epoch, position: Position, owner: ConsumerName) -> Self {
        Self { subscription, epoch, position, owner }
    }
}

/// The answer to an [`Advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advanced {
    /// Whether the record was written. `false`: what is stored is as far already.
    pub moved: bool,
    /// The watermark that is stored now.
    pub watermark: EntryId,
}

impl Advanced {
    /// This is stored now.
    #[must_use]
    pub fn new(moved: bool, watermark: EntryId) -> Self {
        Self { moved, watermark }
    }
}

/// Take ownership of a subscription.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Acquire {
    /// Which subscription.
    pub subscription: Subscription,
    /// Who takes it.
    pub owner: ConsumerName,
    /// How long the lease lasts from now, by the store's clock.
    pub ttl: Duration,
}

impl Acquire {
    /// Takes ownership for `ttl`.
    #[must_use]
    pub fn new(subscription: Subscription, owner: ConsumerName, ttl: Duration) -> Self {
        Self { subscription, owner, ttl }
    }
}

/// The answer to an [`Acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acquired {
    /// The caller owns the subscription.
    Owned(Grant),
    /// Somebody else's lease stands.
    #[non_exhaustive]
    Held {
        /// Whose.
        owner: Option<ConsumerName>,
        /// How long it still stands if it is not renewed.
        remaining: Duration,
    },
}

impl Acquired {
    /// Somebody else's lease stands.
    #[must_use]
    pub fn held(owner: Option<ConsumerName>, remaining: Duration) -> Self {
        Self::Held { owner, remaining }
    }
}

/// What an owner holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Its epoch. All lower ones are fenced from now on.
    pub epoch: Epoch,
    /// How far the subscription was settled; `None` if it never had a checkpoint.
    pub position: Option<Position>,
}

impl Grant {
    /// This epoch, from this position.
    #[must_use]
    pub fn new(epoch: Epoch, position: Option<Position>) -> Self {
        Self { epoch, position }
    }
}

/// Lengthen a lease.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Renew {
    /// Which subscription.
    pub subscription: Subscription,
    /// The epoch that the caller holds.
    pub epoch: Epoch,
    /// How long the lease lasts from now, by the store's clock.
    pub ttl: Duration,
}

impl Renew {
    /// Lengthens the lease to `ttl` from now.
    #[must_use]
    pub fn new(subscription: Subscription, epoch: Epoch, ttl: Duration) -> Self {
        Self { subscription, epoch, ttl }
    }
}

/// Give up ownership.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Release {
    /// Which subscription.
    pub subscription: Subscription,
    /// The epoch that the caller holds.
    pub epoch: Epoch,
}

impl Release {
    /// Gives up this epoch's lease.
    #[must_use]
    pub fn new(subscription: Subscription, epoch: Epoch) -> Self {
        Self { subscription, epoch }
    }
}

/// Set a checkpoint to any position, also backwards, or pause its subscription: what an operator does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResetCheckpoint {
    /// Whose checkpoint.
    pub subscription: Subscription,
    /// Where to. `None`: it stays where it is; at the beginning, if it is nowhere.
    pub position: Option<Position>,
    /// Whether nobody is to consume the subscription from now on. `None`: as it is.
    pub paused: Option<bool>,
    reason: Option<String>,
    /// The watermark that the caller believes to be stored; any other is [`Fenced`](crate::ErrorKind::Fenced). `None`: whatever it
    /// is.
    pub expected_watermark: Option<EntryId>,
    /// The epoch that the caller believes to be stored; any other is [`Fenced`](crate::ErrorKind::Fenced). `None`: whatever
    /// it is.
    pub expected: Option<Epoch>,
    /// Also while somebody's lease stands.
    pub force: bool,
}

impl ResetCheckpoint {
    /// Sets the checkpoint to this position.
    #[must_use]
    pub fn new(subscription: Subscription, position: Position) -> Self {
        Self { position: Some(position), ..Self::nothing(subscription) }
    }

    /// Pauses the subscription, or ends its pause.
    #[must_use]
    pub fn pause(subscription: Subscription, paused: bool) -> Self {
        Self { paused: Some(paused), ..Self::nothing(subscription) }
    }

    fn nothing(subscription: Subscription) -> Self {
        Self {
            subscription,
            position: None,
            paused: None,
            reason: None,
            expected_watermark: None,
            expected: None,
            force: false,
        }
    }

    /// Says why: kept in the record, until the next reset.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is longer than 128 bytes or holds control characters.
    pub fn because(mut self, reason: impl Into<String>) -> Result<Self> {
        let reason = reason.into();
        check_reason(&reason)?;
        self.reason = Some(reason).filter(|reason| !reason.is_empty());
        Ok(self)
    }

    /// Why, if that was said.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Only if the checkpoint stands there; the beginning, if there is none.
    #[must_use]
    pub fn expect_watermark(mut self, watermark: EntryId) -> Self {
        self.expected_watermark = Some(watermark);
        self
    }

    /// Only if this epoch is stored.
    #[must_use]
    pub fn expect(mut self, epoch: Epoch) -> Self {
        self.expected = Some(epoch);
        self
    }

    /// Also while somebody's lease stands.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}

/// A store of checkpoints: one durable record a subscription, protected against stale owners.
///
/// 1. **Fenced.** After an epoch was issued, by [`acquire`](Self::acquire) or [`reset`](Self::reset), no
///    [`advance`](Self::advance), [`renew`](Self::renew) or [`release`](Self::release) of a lower one takes effect, ever, on
///    any connection. The lease is for liveness alone: an owner whose lease has run out, and whom nobody has followed, may
///    still advance.
/// 2. **Monotonic.** Only [`reset`](Self::reset) moves a stored watermark back, and it issues a new epoch.
/// 3. **Idempotent.** Repeating an advance that is stored changes nothing and succeeds, so a caller left with
///    [`Outcome::Unknown`](crate::Outcome::Unknown) may simply try again.
/// 4. **Durable.** When `advance` has returned, a later `load` from any process sees at least that watermark, as far as the
///    store keeps what it was told.
///
/// ```
/// use std::time::Duration;
/// use highwater::{ConsumerName, EntryId, ErrorKind, Memory, Position, Subscription, backend::*};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let (store, orders, me) = (Memory::new(), Subscription::new("orders", "billing")?, ConsumerName::unique());
/// let lease = Acquire::new(orders.clone(), me.clone(), Duration::from_secs(3));
/// let (Acquired::Owned(old), Acquired::Owned(new)) = (store.acquire(&lease).await?, store.acquire(&lease).await?)
/// else {
///     unreachable!("nobody else is there")
/// };
///
/// let advance = |epoch| Advance::new(orders.clone(), epoch, Position::at(EntryId::new(7, 0)), me.clone());
/// assert!(store.advance(&advance(new.epoch)).await?.moved);
/// assert!(!store.advance(&advance(new.epoch)).await?.moved, "once more is harmless");
/// assert_eq!(store.advance(&advance(old.epoch)).await.unwrap_err().kind(), ErrorKind::Fenced);
/// # Ok(())
/// # }
/// ```
///
/// # For implementers
///
/// As for [`StreamBackend`](super::StreamBackend): one attempt, honest outcome, cancel safety, shared, typed errors. Of two
/// positions in one epoch, [`Position::merged_into`](crate::Position::merged_into) says what to keep. A record that cannot be
/// read is [`Corrupt`](crate::ErrorKind::Corrupt) in every method, and stays as it is. Run
/// `checkpoint_conformance!` over the result.
#[async_trait]
pub trait CheckpointBackend: fmt::Debug + Send + Sync + 'static {
    /// The short name of the backend, for logs and errors: `redis`, `postgres`, `sqlite`, `memory`.
    fn name(&self) -> &'static str;

    /// The checkpoint of a subscription, if it has one.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the record cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>>;

    /// All checkpoints on a stream, for whoever must not trim what they still need.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if one of them cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>>;

    /// Takes ownership if nobody's lease stands, with a new epoch; also if the caller's own lease stands.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the record cannot be read.
    ///
    /// # Cancel safety
    ///
    /// The epoch may have grown without the caller learning it, and the lease may stand. The same owner may simply try again;
    /// skipped epochs are harmless.
    async fn acquire(&self, request: &Acquire) -> Result<Acquired>;

    /// Lengthens a lease, also one that has run out, if nobody has followed.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::ErrorKind::Fenced) if the stored epoch is another one, or there is none.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn renew(&self, request: &Renew) -> Result<()>;

    /// Ends a lease. The epoch stays as it is, so that the next owner gets a higher one.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::ErrorKind::Fenced) if the stored epoch is another one, or there is none.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn release(&self, request: &Release) -> Result<()>;

    /// Moves a checkpoint forward if the caller's epoch is the stored one; creates it at epoch `0` if there is none.
    ///
    /// A lower position in the same epoch is no error, since in a shared subscription several write: it answers with what is
    /// stored.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::ErrorKind::Fenced) if the stored epoch is higher: stop, do not repeat, do not ack.
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is lower, or there is none and the caller's is not `0`: that epoch was
    /// never issued, or the record was lost.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn advance(&self, request: &Advance) -> Result<Advanced>;

    /// Sets the checkpoint to any position, pauses the subscription or ends its pause, as one compare-and-set, and issues a
    /// new epoch, which it returns. Ends the lease that stood. A new position forgets the attempts that are remembered.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) if a lease stands and `force` is not set; [`Fenced`](crate::ErrorKind::Fenced) if the
    /// stored epoch or watermark is not the expected one. Nothing was changed then.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place: load, and compare the epoch.
    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch>;

    /// What is remembered of attempts at entries, in the order of ids.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if a record cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>>;

    /// Remembers attempts, and forgets others, in one atomic step, if the caller's epoch is the stored one.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::ErrorKind::Fenced) and [`Invalid`](crate::ErrorKind::Invalid) as of [`advance`](Self::advance); nothing was
    /// changed then.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()>;

    /// Closes connections. Later calls fail with [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the backend closes what is left.
    async fn close(&self);
}
