//! A value that is both stores, and can settle in one step.

use async_trait::async_trait;

use super::{CheckpointBackend, StreamBackend};
use crate::{ConsumerName, EntryId, Epoch, Position, Result, Subscription};

/// Ack entries of a group and advance the checkpoint to where the group then stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settle {
    /// The subscription.
    pub subscription: Subscription,
    /// Which entries. May be empty, to advance alone.
    pub ids: Vec<EntryId>,
    /// The epoch that the caller holds.
    pub epoch: Epoch,
    /// Who settles.
    pub owner: ConsumerName,
    /// Also find out the ordinal, which may cost the server more.
    pub count: bool,
}

impl Settle {
    /// Settles these.
    #[must_use]
    pub fn new(subscription: Subscription, ids: Vec<EntryId>, epoch: Epoch, owner: ConsumerName) -> Self {
        Self { subscription, ids, epoch, owner, count: false }
    }

    /// Also finds out the ordinal.
    #[must_use]
    pub fn count(mut self, count: bool) -> Self {
        self.count = count;
        self
    }
}

/// The answer to a [`Settle`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// How many were pending, and are not any more.
    pub acked: u64,
    /// How far the group is settled now, and the checkpoint says: [joined](Position::joined) with what the checkpoint had as
    /// settled ahead, which a group that was created anew has pending again. `None` if the group is gone; nothing was advanced then.
    pub position: Option<Position>,
}

impl Settled {
    /// This many were acked; the group then stood there.
    #[must_use]
    pub fn new(acked: u64, position: Option<Position>) -> Self {
        Self { acked, position }
    }
}

/// One value that is both stream and checkpoint store, and settles in one atomic step.
///
/// The acks and the advance all take place or none does. That one value is both is what proves that they are on the same
/// server; a layer that does not implement this trait cannot be used this way, and does not compile.
#[async_trait]
pub trait AtomicSettle: StreamBackend + CheckpointBackend {
    /// Acks entries and advances the checkpoint to where the group then stands. Idempotent.
    ///
    /// # Errors
    ///
    /// Those of [`CheckpointBackend::advance`]; then nothing was acked either.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    async fn settle(&self, request: &Settle) -> Result<Settled>;
}
