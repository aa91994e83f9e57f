//! Memory as a transactional store: effects that wait for their commit.

use std::fmt;

use async_trait::async_trait;

use super::{Memory, group, record::Record};
use crate::{
    EntryId, Result,
    backend::{Advance, Committed, Settlement, TransactionalCheckpoint},
};

/// A transaction on a [`Memory`]: effects that take place when it commits, or never.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use highwater::{ConsumerName, EntryId, Epoch, Memory, Subscription, backend::*};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let (memory, rows) = (Memory::new(), Arc::new(Mutex::new(Vec::new())));
/// let orders = Subscription::new("orders", "billing")?;
/// let settlement = Settlement::each(orders, Epoch(0), ConsumerName::unique(), vec![EntryId::new(1, 0)]);
/// for _ in 0..2 {
///     let (mut tx, rows) = (memory.begin().await?, Arc::clone(&rows));
///     tx.effect(move || rows.lock().unwrap().push("paid"));
///     memory.commit(tx, &settlement).await?;
/// }
/// assert_eq!(*rows.lock().unwrap(), ["paid"], "an entry is settled once");
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Tx {
    effects: Vec<Box<dyn FnOnce() + Send>>,
}

impl Tx {
    /// Does this when the transaction commits. It must not call the store.
    pub fn effect(&mut self, effect: impl FnOnce() + Send + 'static) {
        self.effects.push(Box::new(effect));
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("effects", &self.effects.len()).finish()
    }
}

#[async_trait]
impl TransactionalCheckpoint for Memory {
    type Tx = Tx;

    async fn begin(&self) -> Result<Tx> {
        self.state().map(|_| Tx::default())
    }

    async fn settled(&self, _: &mut Tx, request: &Settlement) -> Result<Vec<EntryId>> {
        let state = self.state()?;
        Ok(state
            .checkpoints
            .get(&request.subscription)
            .map_or_else(Vec::new, |record| record.settled(request)))
    }

    async fn commit(&self, tx: Tx, request: &Settlement) -> Result<Committed> {
        request.validate()?;
        let now = self.clock().now();
        let mut state = self.state()?;
        let Settlement { subscription, epoch, owner, ids, position, fused } = request.clone();
        // Before it is created, so that a fenced owner leaves nothing.
        match state.checkpoints.get(&subscription) {
            Some(record) => record.check(epoch)?,
            None => Record::default().check(epoch)?,
        }
        let record = state.checkpoints.entry(subscription.clone()).or_default();
        let before = record.settled(request);
        if !before.is_empty() {
            return Ok(Committed::AlreadySettled(before));
        }
        let position = match position {
            Some(position) => Some(position),
            None => {
                record.settle(&ids);
                let log = state.log_mut(&subscription.stream).filter(|_| fused);
                log.and_then(|log| group::ack(log, &subscription.group, &ids, true).position)
            }
        };
        let mut watermark = None;
        if let Some(position) = position {
            let record = state.checkpoints.entry(subscription.clone()).or_default();
            let advance = Advance::new(subscription, epoch, position, owner);
            watermark = Some(record.advance(&advance, now)?.watermark);
        }
        tx.effects.into_iter().for_each(|effect| effect());
        Ok(Committed::done(watermark))
    }
}
