//! A lane that runs the user's handler inside a transaction and commits it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::future::BoxFuture;

use super::{
    HandlerError, Ownership,
    context::{Context, is_passing},
    lane::{Chunk, Desk, Lanes},
    machine::{self, Finished},
};
use crate::{
    Delivery, EntryId, Epoch, Error, ErrorKind, Outcome, Result,
    backend::{Committed, Settlement, TransactionalCheckpoint},
};

/// One transaction for each chunk.
pub(crate) struct Transactions<C, F> {
    store: Arc<C>,
    context: Arc<Context>,
    fused: bool,
    call: F,
    /// How often the store could not answer since it did.
    failed: AtomicU32,
}

/// Why a transaction did not take place.
enum Failure {
    Handler(HandlerError),
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.kind() == ErrorKind::Handler {
            // What it wrote cannot be committed.
            return Self::Handler(HandlerError::retry(error));
        }
        Self::Store(error)
    }
}

impl<C, F> Transactions<C, F> {
    pub(crate) fn new(store: Arc<C>, context: Arc<Context>, fused: bool, call: F) -> Self {
        Self { store, context, fused, call, failed: AtomicU32::new(0) }
    }
}

impl<C, F> Lanes for Transactions<C, F>
where
    C: TransactionalCheckpoint,
    F: for<'a> Fn(&'a mut C::Tx, Vec<Delivery>) -> BoxFuture<'a, Result<(), HandlerError>>
        + Send
        + Sync
        + 'static,
{
    fn settles(&self) -> bool {
        true
    }

    fn settled(&self, epoch: Epoch, mut ids: Vec<EntryId>) -> BoxFuture<'_, Result<Vec<EntryId>>> {
        Box::pin(async move {
            ids.sort_unstable();
            let Context { subscription, name, .. } = &*self.context;
            let request = Settlement::each(subscription.clone(), epoch, name.clone(), ids);
            self.store.settled(&mut self.store.begin().await?, &request).await
        })
    }

    fn run(self: Arc<Self>, chunk: Chunk, desk: Arc<Desk>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let slot = chunk.slot;
            self.context.lease.stands().await;
            if desk.halted() {
                desk.put(Finished::Idle { slot, rest: chunk.deliveries });
                return;
            }
            self.settle(chunk, &desk).await;
            desk.put(Finished::Idle { slot, rest: Vec::new() });
        })
    }
}

impl<C, F> Transactions<C, F>
where
    C: TransactionalCheckpoint,
    F: for<'a> Fn(&'a mut C::Tx, Vec<Delivery>) -> BoxFuture<'a, Result<(), HandlerError>>,
{
    /// Handles and settles a chunk, but for what was settled before.
    async fn settle(&self, mut chunk: Chunk, desk: &Desk) {
        while !chunk.deliveries.is_empty() {
            match self.attempt(&chunk).await {
                Ok(Committed::Done { watermark }) => {
                    self.failed.store(0, Ordering::Relaxed);
                    let Some(watermark) = watermark else {
                        // Where the step advanced nothing, the ack and the advance are left to do.
                        desk.put(Finished::done(&chunk.deliveries));
                        return;
                    };
                    for delivery in chunk.deliveries {
                        desk.put(Finished::Committed(delivery.id(), delivery.fields().size() as u64));
                    }
                    desk.put(Finished::Advanced(watermark));
                    return;
                }
                Ok(Committed::AlreadySettled(ids)) => {
                    let before: HashSet<EntryId> = ids.into_iter().collect();
                    let held = chunk.deliveries.len();
                    // An owner leaves them out of its position's next step, too: they may have been settled each by itself
                    // before it came, and whatever it holds is fenced by its epoch.
                    for delivery in chunk.deliveries.extract_if(.., |d| before.contains(&d.id())) {
                        desk.put(Finished::Before(delivery.id(), delivery.fields().size() as u64));
                    }
                    if chunk.deliveries.len() == held {
                        let message = "entries were settled that this consumer holds as unsettled: it begins again at the checkpoint";
                        desk.put(Finished::Broken(Error::new(ErrorKind::Fenced, message)));
                        return;
                    }
                }
                Err(Failure::Handler(error)) => {
                    let Chunk { slot, deliveries, .. } = chunk;
                    let failure = machine::Failure::new(error, true);
                    desk.put(Finished::Failed { slot, deliveries, failure, rest: Vec::new() });
                    return;
                }
                Err(Failure::Store(error)) => {
                    desk.put(self.without_answer(chunk, error));
                    return;
                }
            }
        }
    }

    async fn attempt(&self, chunk: &Chunk) -> Result<Committed, Failure> {
        let request = self.settlement(chunk);
        let mut tx = self.store.begin().await?;
        if chunk.deliveries.iter().any(Delivery::is_redelivery) {
            let before = self.store.settled(&mut tx, &request).await?;
            if !before.is_empty() {
                return Ok(Committed::AlreadySettled(before));
            }
        }
        // The call is within, for a handler may panic before it returns its future.
        let call = async { (self.call)(&mut tx, chunk.deliveries.clone()).await };
        let handled = self.context.call_limit().caught(call).await;
        let ended = match handled {
            Ok(()) => self.store.commit(tx, &request).await.map_err(Failure::from),
            Err(error) => {
                drop(tx);
                Err(Failure::Handler(error))
            }
        };
        let Err(Failure::Handler(error)) = ended else { return ended };
        // It may have failed for the very reason that what it writes is there: a group that was lost, and made anew at the
        // checkpoint, delivers as new what is settled above it.
        let before = self.store.settled(&mut self.store.begin().await?, &request).await?;
        if before.is_empty() { Err(Failure::Handler(error)) } else { Ok(Committed::AlreadySettled(before)) }
    }

    fn settlement(&self, chunk: &Chunk) -> Settlement {
        let mut ids: Vec<_> = chunk.deliveries.iter().map(Delivery::id).collect();
        // Claimed ones come in any order. All take them in the same order, lest two wait for each other.
        ids.sort_unstable();
        let Context { subscription, name, .. } = &*self.context;
        let each = Settlement::each(subscription.clone(), chunk.epoch, name.clone(), ids);
        match &chunk.position {
            Some(position) => each.up_to(position.clone()),
            None => each.fused(self.fused),
        }
    }

    /// What follows when the store did not commit, or did not say so.
    fn without_answer(&self, mut chunk: Chunk, error: Error) -> Finished<HandlerError> {
        let in_doubt = error.outcome() == Outcome::Unknown;
        if !is_passing(&error) || (in_doubt && self.context.settings.ownership == Ownership::Exclusive) {
            // Only a new epoch can tell an owner what took place, and keep the rest from taking place later.
            return Finished::Broken(error);
        }
        chunk.deliveries.iter_mut().for_each(|delivery| delivery.begun = true);
        let failed = self.failed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let again = self.context.clock.elapsed() + self.context.unavailable(&error, failed);
        Finished::Deferred { deliveries: chunk.deliveries, again }
    }
}
