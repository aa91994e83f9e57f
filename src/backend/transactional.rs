//! A checkpoint store whose advance is part of a transaction, together with what the user writes there.

use async_trait::async_trait;

use super::CheckpointBackend;
use crate::{ConsumerName, EntryId, Epoch, Error, Position, Result, Subscription};

/// Entries to settle in a transaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settlement {
    /// Whose entries.
    pub subscription: Subscription,
    /// The epoch that the caller holds.
    pub epoch: Epoch,
    /// Who settles.
    pub owner: ConsumerName,
    /// Which entries: at least one, and they ascend.
    pub ids: Vec<EntryId>,
    /// Exclusive: how far the subscription is settled with them; the stored watermark must be below the first of them.
    /// `None`, shared: each is settled by itself.
    pub position: Option<Position>,
    /// Shared, and the group is in the same store: a store that can acks there as well.
    pub fused: bool,
}

impl Settlement {
    /// Settles each of these entries by itself, as a shared subscription does.
    #[must_use]
    pub fn each(subscription: Subscription, epoch: Epoch, owner: ConsumerName, ids: Vec<EntryId>) -> Self {
        Self { subscription, epoch, owner, ids, position: None, fused: false }
    }

    /// Settles these entries by an advance to this position, as the owner of an exclusive subscription does.
    #[must_use]
    pub fn up_to(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// The group is in the same store.
    #[must_use]
    pub fn fused(mut self, fused: bool) -> Self {
        self.fused = fused;
        self
    }

    /// What every store checks before a [`commit`](TransactionalCheckpoint::commit): a request that would leave an entry
    /// unsettled beside its effects is refused.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if there are no entries, they do not ascend, or the position does not settle all of
    /// them.
    pub fn validate(&self) -> Result<()> {
        if self.ids.is_empty() || !self.ids.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid("a settlement has at least one entry, and they ascend"));
        }
        match &self.position {
            Some(position) if !self.ids.iter().all(|id| position.settles(*id)) => {
                Err(Error::invalid("the position of a settlement settles all of its entries"))
            }
            _ => Ok(()),
        }
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Committed {
    /// All of it took place: the effects, and that the entries are settled.
    #[non_exhaustive]
    Done {
        /// Where the checkpoint stands now, if the step advanced it, and acked the entries where there is a group. `None`:
        /// that is left to do.
        watermark: Option<EntryId>,
    },
    /// None of it did, since these entries were settled before.
    AlreadySettled(Vec<EntryId>),
}

impl Committed {
    /// All of it took place, and the checkpoint stands there, if the step advanced it.
    #[must_use]
    pub fn done(watermark: Option<EntryId>) -> Self {
        Self::Done { watermark }
    }
}

/// A checkpoint store whose advance is part of a transaction: effects and checkpoint take place together or not at all.
///
/// 1. **Once.** Of all transactions that settle an entry of a subscription at most one takes place, whoever begins them, as
///    long as the checkpoint is not reset. Those [with a position](Settlement::up_to) see what was settled
///    [each by itself](Settlement::each) before, and refuse it; the two kinds are not meant to run side by side.
/// 2. **Fenced.** A transaction of an epoch that is not the stored one does not take place.
/// 3. **Resolved.** When it is unknown whether a commit took place, then [`acquire`](CheckpointBackend::acquire) and a
///    transaction that settles one of its entries wait until it is known, or end it.
/// 4. **Pruned.** What is kept of an entry that was settled by itself goes when the watermark has passed it.
#[async_trait]
pub trait TransactionalCheckpoint: CheckpointBackend {
    /// A transaction that is open: what a handler writes to. Dropping it rolls it back.
    type Tx: Send + 'static;

    /// Begins a transaction.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// Safe: a transaction that nobody got is rolled back.
    async fn begin(&self) -> Result<Self::Tx>;

    /// Which of the entries are settled already. Those that another open transaction settles are not.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    async fn settled(&self, tx: &mut Self::Tx, request: &Settlement) -> Result<Vec<EntryId>>;

    /// Settles the entries and commits, in one step. Whatever it answers, the transaction has ended.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::ErrorKind::Fenced) and [`Invalid`](crate::ErrorKind::Invalid) as
    /// [`advance`](CheckpointBackend::advance); [`Handler`](crate::ErrorKind::Handler) if what was written cannot be
    /// committed, such as a violated constraint; [`Unsupported`](crate::ErrorKind::Unsupported) if the store needs the group
    /// beside it and the settlement is not [`fused`](Settlement::fused). Unless the outcome is
    /// [`Unknown`](crate::Outcome::Unknown), nothing took place.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place, entirely or not at all.
    async fn commit(&self, tx: Self::Tx, request: &Settlement) -> Result<Committed>;
}
