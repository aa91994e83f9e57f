//! Pause, resume, seek, reset.

use std::sync::Arc;

use super::{
    Standing,
    place::{self, SeekTo},
};
use crate::{
    Checkpoint, Epoch, Error, ErrorKind, Position, Result, Subscription,
    backend::{CheckpointBackend, Inspect, Removal, ResetCheckpoint, StreamBackend},
    integrity::{self, Finding},
};

/// The reasons of the pause in which a group is removed: of a subscription that ran before, and of one that was paused.
const MOVING: &str = "a move is under way: repeat it if it was interrupted";
const MOVING_PAUSED: &str = "a move of a paused subscription is under way: repeat it if it was interrupted";

/// Operates on one subscription from outside of its consumers.
///
/// Every operation takes a new epoch, so whoever consumed before is fenced. It refuses with [`Busy`](ErrorKind::Busy) while an
/// owner's lease or a consumer's heartbeat stands, unless it is [forced](Self::force). Repeating one that was interrupted is
/// safe.
///
/// ```
/// use highwater::{Consumer, EntryId, Fields, Memory, Operator, Producer, SeekTo, Subscription};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// # let memory = Memory::new();
/// # let producer = Producer::new("orders".parse()?, memory.clone())?;
/// # let first = producer.append(Fields::from_iter([("kind", "order")])).await?;
/// # producer.append(Fields::from_iter([("kind", "order")])).await?;
/// let operator = Operator::new(Subscription::new("orders", "billing")?, memory.clone(), memory);
///
/// operator.pause("the ledger is being restored").await?;
/// operator.seek(SeekTo::Start, "as of the backup").await?;
/// operator.skip(first, "it is in the backup").await?;
/// assert!(operator.status().await?.is_paused());
/// operator.resume().await?;
///
/// let status = operator.status().await?;
/// assert_eq!(status.checkpoint.unwrap().position.watermark, first);
/// assert_eq!(status.backlog, Some(1));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Operator {
    pub(super) subscription: Subscription,
    pub(super) stream: Arc<dyn StreamBackend>,
    pub(super) checkpoints: Arc<dyn CheckpointBackend>,
    force: bool,
}

impl Operator {
    /// Operates on a subscription whose stream and whose checkpoint are in these stores.
    #[must_use]
    pub fn new(
        subscription: Subscription,
        stream: impl StreamBackend,
        checkpoints: impl CheckpointBackend,
    ) -> Self {
        Self { subscription, stream: Arc::new(stream), checkpoints: Arc::new(checkpoints), force: false }
    }

    /// Also while somebody lives on the subscription. They notice within a
    /// [`probe_interval`](crate::Settings::probe_interval), an owner within a third of its
    /// [`ttl`](crate::Settings::ttl), and begin again at what they find then.
    ///
    /// Until they have noticed, what they hold may be handled, and in a shared subscription acked. After a forced seek
    /// back, such an entry may count as handled anew; pause first, wait until [`status`](Self::status) shows nobody alive, and
    /// then seek, where that matters.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// How the subscription stands.
    ///
    /// # Errors
    ///
    /// Those of the stores; [`Corrupt`](ErrorKind::Corrupt) if the checkpoint cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    pub async fn status(&self) -> Result<Standing> {
        // In this order: a group that moves on in between is further than its checkpoint, as it may be at any time.
        let checkpoint = self.checkpoints.load(&self.subscription).await?;
        let inspect = Inspect::subscription(&self.subscription).count_alive(true);
        let stream = self.stream.inspect(&inspect).await?;
        Ok(Standing::new(checkpoint, stream))
    }

    /// Makes all consumers stand by, those that start later too, until [`resume`](Self::resume). The pause is in the
    /// checkpoint, so it survives restarts of everything. A subscription without a checkpoint gets one, at the beginning of
    /// its stream.
    ///
    /// Running consumers are paused by [`force`](Self::force). They drop what they hold, and it is delivered again.
    ///
    /// # Errors
    ///
    /// [`Busy`](ErrorKind::Busy) while somebody lives on the subscription; [`Invalid`](ErrorKind::Invalid) for a reason that is
    /// longer than 128 bytes or has control characters.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    pub async fn pause(&self, reason: impl Into<String>) -> Result<Epoch> {
        let pause = ResetCheckpoint::pause(self.subscription.clone(), true).because(reason)?;
        self.free().await?;
        self.checkpoints.reset(&pause.force(self.force)).await
    }

    /// Ends a pause: consumers that stand by go on within a [`probe_interval`](crate::Settings::probe_interval). Of a
    /// subscription that is not paused it changes nothing.
    ///
    /// Returns the epoch that stands then.
    ///
    /// # Errors
    ///
    /// Those of the stores.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeating it is harmless.
    pub async fn resume(&self) -> Result<Epoch> {
        match self.checkpoints.load(&self.subscription).await? {
            // Who holds a lease now has yet to see the pause, and gives it back.
            Some(checkpoint) if checkpoint.paused => {
                let resume = ResetCheckpoint::pause(self.subscription.clone(), false).force(true);
                self.checkpoints.reset(&resume).await
            }
            stored => Ok(stored.map_or(Epoch::default(), |checkpoint| checkpoint.epoch)),
        }
    }

    /// Makes the subscription go on elsewhere, before or behind where it stands. What is settled ahead, what is pending and what
    /// is remembered of attempts is forgotten. The position belongs to the stream as it is now, whichever it was before. A
    /// pause stays.
    ///
    /// A shared subscription moves in three steps: it is paused, its group is removed, and the checkpoint is moved and the pause
    /// ended in one. Interrupted, it stays paused, says so in its reason, and has lost nothing: repeat the call.
    ///
    /// # Errors
    ///
    /// [`Busy`](ErrorKind::Busy) while somebody lives on the subscription; [`Invalid`](ErrorKind::Invalid) for an id behind the
    /// last one of the stream, and as of [`pause`](Self::pause); [`Fenced`](ErrorKind::Fenced) if another operator came in
    /// between: look again.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place, or in part. Repeating it is harmless.
    pub async fn seek(&self, to: SeekTo, reason: impl Into<String>) -> Result<Epoch> {
        let status = self.free().await?;
        let stored = status.checkpoint.as_ref().map(|checkpoint| &checkpoint.position);
        let position = place::position(to, stored, status.stream.as_ref())?;
        self.go(&status, position, reason.into()).await
    }

    /// As [`seek`](Self::seek), to a whole position: one that was written down before, or that other software has reached.
    ///
    /// # Errors
    ///
    /// As of [`seek`](Self::seek), and [`Reset`](ErrorKind::Reset) if the position does not belong to the stream: it lies behind
    /// its end, or in another life of it. Where only entries above it are gone it is taken, and consumers find the gap.
    ///
    /// # Cancel safety
    ///
    /// As [`seek`](Self::seek).
    pub async fn reset(&self, position: Position, reason: impl Into<String>) -> Result<Epoch> {
        let status = self.free().await?;
        let stream = status.stream.as_ref();
        if let Some(finding @ Finding::Reset(_)) = integrity::check(&position, stream) {
            return Err(finding.into());
        }
        let incarnation = position.incarnation.clone().or_else(|| stream.and_then(|s| s.incarnation.clone()));
        self.go(&status, position.with_incarnation(incarnation), reason.into()).await
    }

    pub(super) fn is_forced(&self) -> bool {
        self.force
    }

    /// How it stands, if nobody lives on it. The store itself looks at leases.
    pub(super) async fn free(&self) -> Result<Standing> {
        let status = self.status().await?;
        let alive = status.consumers_alive();
        if alive > 0 && !self.force {
            let message = "consumers of the subscription are alive: stop them, or pause it with `force` and wait until they stand by";
            return Err(Error::new(ErrorKind::Busy, message).with("consumers", alive));
        }
        Ok(status)
    }

    /// Moves the checkpoint, and where there is a group, takes it away, so that it is created at the new place.
    ///
    /// The group is the truth about a shared subscription: next to a group that stands further on, a checkpoint that was moved
    /// back alone would follow it again. So the group goes first, while a pause keeps everybody from creating it again at the
    /// old place; and the checkpoint moves in the same step that ends the pause. After a crash between two of these steps the
    /// checkpoint stands where it stood. Without the group, some of what is settled above it comes again; nothing is passed.
    async fn go(&self, status: &Standing, position: Position, reason: String) -> Result<Epoch> {
        let paused = status.checkpoint.as_ref().is_some_and(was_paused);
        let mut go =
            ResetCheckpoint::new(self.subscription.clone(), position).because(reason)?.force(self.force);
        go.paused = Some(paused);
        if status.group().is_none() {
            let epoch = self.checkpoints.reset(&go).await?;
            if self.status().await?.group().is_none() {
                return Ok(epoch);
            }
            // A consumer that had looked before came in between, and its group may stand anywhere.
        }
        let held = ResetCheckpoint::pause(self.subscription.clone(), true)
            .because(if paused { MOVING_PAUSED } else { MOVING })?
            .force(self.force);
        let held = self.checkpoints.reset(&held).await?;
        self.stream.remove(&Removal::Group(self.subscription.clone())).await?;
        self.checkpoints.reset(&go.expect(held)).await
    }
}

/// Whether an operator has paused it. The pause of a move that was interrupted ends with the next one.
fn was_paused(checkpoint: &Checkpoint) -> bool {
    checkpoint.paused && checkpoint.reason.as_deref() != Some(MOVING)
}
