//! Makes what is handled durable: ack, read the watermark after it, advance; as one step where the stores are one.

use std::sync::Arc;

use super::{context::Context, ledger::Save, resume};
use crate::{
    EntryId, Epoch, Error, ErrorKind, Incarnation, Position, Result,
    backend::{Ack, Advance, AtomicSettle, CheckpointBackend, Inspect, Settle, StreamBackend},
};

/// How a save reaches the stores.
#[derive(Debug, Clone)]
pub(crate) enum Settler {
    /// Exclusive: the checkpoint alone.
    Checkpoint,
    /// Shared, two stores: ack, then advance.
    TwoStep,
    /// Shared, one store: both at once.
    Atomic(Arc<dyn AtomicSettle>),
}

/// What is held belongs to it: the epoch of the checkpoint, and the incarnation of the stream where it has one.
pub(crate) type Life = (Epoch, Option<Incarnation>);

/// What a save has led to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved {
    /// Where the checkpoint stands now; `None` if the group is gone, and nothing was saved.
    pub(crate) watermark: Option<EntryId>,
    /// How many acks found nothing pending.
    pub(crate) late_acks: u64,
}

impl Settler {
    /// Where a save takes two steps, the ack knows neither epoch nor life of the stream. Comes before one that is in doubt: ids of a
    /// stream that is gone may stand for other entries by now.
    pub(crate) async fn check(&self, context: &Context, life: &Life) -> Result<()> {
        if !matches!(self, Self::TwoStep) {
            return Ok(());
        }
        let (epoch, incarnation) = life;
        let stored = context.store.load(&context.subscription).await?;
        let state = context.stream.inspect(&Inspect::stream(context.subscription.stream.clone())).await?;
        let now = state.and_then(|state| state.incarnation);
        if resume::epoch(stored.as_ref()) == *epoch && (incarnation.is_none() || *incarnation == now) {
            return Ok(());
        }
        let message =
            "the checkpoint was reset, or the stream created anew: what was handled before is not acked";
        Err(Error::new(ErrorKind::Fenced, message))
    }

    /// Saves. Idempotent, so that it may be repeated after any error.
    ///
    /// What is held, and what the group says now, is true in this `epoch` and in no later one.
    pub(crate) async fn save(
        &self,
        context: &Context,
        epoch: Epoch,
        save: &Save,
        count: bool,
    ) -> Result<Saved> {
        let asked = save.ids.len() as u64;
        let (acked, position) = match self {
            Self::Checkpoint => {
                let Some(position) = save.position.clone() else {
                    return Ok(Saved { watermark: None, late_acks: 0 });
                };
                (asked, Some(advance(context, epoch, position).await?))
            }
            Self::TwoStep => {
                let ack = Ack::new(context.subscription.clone(), save.ids.clone()).count(count);
                let acked = context.stream.ack(&ack).await?;
                match acked.position {
                    Some(position) => {
                        // A group that was created anew has entries pending that the checkpoint has as settled.
                        let position = match &save.known {
                            Some(known) => position.joined(known),
                            None => position,
                        };
                        let ahead = position.ahead.clone().truncated(context.settings.ahead_bytes_max);
                        let incarnation = position.incarnation.clone().or_else(|| context.incarnation());
                        let position = position.with_ahead(ahead).with_incarnation(incarnation);
                        (acked.acked, Some(advance(context, epoch, position).await?))
                    }
                    None => (acked.acked, None),
                }
            }
            Self::Atomic(backend) => {
                let request =
                    Settle::new(context.subscription.clone(), save.ids.clone(), epoch, context.name.clone());
                let settled = backend.settle(&request.count(count)).await?;
                (settled.acked, settled.position.map(|p| p.watermark))
            }
        };
        let late_acks = asked.saturating_sub(acked).saturating_sub(save.letters as u64);
        Ok(Saved { watermark: position, late_acks })
    }
}

async fn advance(context: &Context, epoch: Epoch, position: Position) -> Result<EntryId> {
    let advance = Advance::new(context.subscription.clone(), epoch, position, context.name.clone());
    Ok(context.store.advance(&advance).await?.watermark)
}
