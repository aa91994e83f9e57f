//! Makes what is handled durable: ack, read the watermark after it, advance; as one step where the stores are one.

use std::sync::Arc;

use super::{context::Context, ledger::Save};
use crate::{
    EntryId, Epoch, Position, Result,
    backend::{Ack, Advance, AtomicSettle, CheckpointBackend, Settle, StreamBackend},
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

/// What a save has led to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved {
    /// Where the checkpoint stands now; `None` if the group is gone, and nothing was saved.
    pub(crate) watermark: Option<EntryId>,
    /// How many acks found nothing pending.
    pub(crate) late_acks: u64,
}

impl Settler {
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
        Ok(Saved { watermark: position, late_acks: asked.saturating_sub(acked) })
    }
}

async fn advance(context: &Context, epoch: Epoch, position: Position) -> Result<EntryId> {
    let advance = Advance::new(context.subscription.clone(), epoch, position, context.name.clone());
    Ok(context.store.advance(&advance).await?.watermark)
}
