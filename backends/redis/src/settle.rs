//! Acks and the advance in one step.

use async_trait::async_trait;
use highwater::{
    EntryId, Result,
    backend::{AtomicSettle, Settle, Settled},
};

use crate::{
    backend::Redis,
    checkpoint::{Answer, read_answer, wrong_epoch},
    client::{Arguments, Driver, Fault},
    commands::Push,
    error::writing,
    keys,
    packed::Packed,
    scripts::Script,
    stream::{acked, ascending, push_ack},
};

#[async_trait]
impl<D: Driver> AtomicSettle for Redis<D> {
    async fn settle(&self, request: &Settle) -> Result<Settled> {
        let subscription = &request.subscription;
        let ids = ascending(&request.ids);
        let keys = [
            &*keys::checkpoint(subscription),
            &*keys::groups(&subscription.stream),
            &*keys::settled(subscription),
            subscription.stream.as_str(),
        ];
        if let Some(settled) = self.settle_watched(request, &ids, &keys).await {
            return settled;
        }
        let value = self.script(Script::Settle, &keys, arguments(request, &ids)).await;
        let value = value.map_err(writing("settle"))?;
        let answer =
            read_answer(value, "settle").map_err(|error| error.with("subscription", subscription))?;
        match answer {
            Answer::Done(parts) => {
                let (acked, position) = acked(parts, "settle")?;
                Ok(Settled::new(acked, position))
            }
            Answer::Fenced(stored) => Err(wrong_epoch(request.epoch, stored)),
            Answer::Held(..) => Err(writing("settle")(Fault::Unreadable("acks and a position"))),
        }
    }
}

/// What the script takes.
pub(crate) fn arguments(request: &Settle, ids: &[EntryId]) -> impl FnOnce(&mut Packed) {
    |packed| {
        packed.arg(request.subscription.group.as_str().as_bytes());
        packed.push_number(request.epoch.0);
        packed.arg(request.owner.as_str().as_bytes());
        push_ack(packed, request.count, ids);
    }
}
