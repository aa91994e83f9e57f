//! The one wrapper: every method of every trait is written here once, for all layers.

use std::{
    fmt,
    future::Future,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{Attempt, Call, Operation};
use crate::{
    Attempts, Checkpoint, Delivery, Entry, EntryId, Epoch, Error, ErrorKind, GroupName, Result, Retry,
    StreamName, Subscription,
    backend::{
        Ack, Acked, Acquire, Acquired, Advance, Advanced, Append, AtomicSettle, Beat, BuryLetters,
        CheckpointBackend, Claim, Claimed, Committed, DeadKeys, EnsureGroup, Fate, Heartbeat, Inspect, Leave,
        Left, LoadAttempts, NoteAttempts, PendingEntry, Read, ReadGroup, ReadPending, Redrive, Redriven,
        Release, Removal, Renew, ResetCheckpoint, Settle, Settled, Settlement, StreamBackend,
        StreamCapabilities, StreamState, TransactionalCheckpoint, Trim,
    },
};

/// What happens around the calls to a backend.
///
/// One method stands for all of theirs, so that none can be forgotten. Write your own and wrap it around any backend:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use highwater::{Result, layer::{Attempt, Call, Layer}, memory::Memory};
///
/// #[derive(Debug, Default)]
/// struct Count(AtomicU64);
///
/// impl Layer for Count {
///     async fn call<'a, T: Send + 'a>(&'a self, _: Call, attempt: Attempt<'a, T>) -> Result<T> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         attempt().await
///     }
/// }
///
/// let backend = Count::default().wrap(Memory::new());
/// # drop(backend);
/// ```
pub trait Layer: fmt::Debug + Send + Sync + 'static {
    /// Calls the backend by `attempt`: never, once, or again.
    ///
    /// # Errors
    ///
    /// Those of the attempt, and the layer's own.
    ///
    /// # Cancel safety
    ///
    /// That of the attempt, if the layer keeps nothing: dropping this drops the attempt.
    fn call<'a, T: Send + 'a>(
        &'a self,
        call: Call,
        attempt: Attempt<'a, T>,
    ) -> impl Future<Output = Result<T>> + Send + 'a;

    /// Of a batch, the backend is asked for at most this many entries: of an append the first of them, of what reads a lower
    /// limit. Asked before each such call.
    ///
    /// [`Faults`](super::Faults) make batches partial by it. By default there is no limit.
    fn entries_max(&self, call: Call) -> usize {
        let _ = call;
        usize::MAX
    }

    /// This layer around a backend.
    fn wrap<B>(self, backend: B) -> Layered<B, Self>
    where
        Self: Sized,
    {
        Layered { backend, layer: self }
    }
}

/// A backend with a layer around it: a backend again.
#[derive(Debug, Clone)]
pub struct Layered<B, L> {
    backend: B,
    layer: L,
}

impl<B, L> Layered<B, L> {
    /// The backend inside.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.backend
    }

    /// The layer.
    #[must_use]
    pub fn layer(&self) -> &L {
        &self.layer
    }
}

#[async_trait]
impl<B: StreamBackend, L: Layer> StreamBackend for Layered<B, L> {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn capabilities(&self) -> StreamCapabilities {
        self.backend.capabilities()
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        let call = Call::new(self.backend.name(), Operation::Append);
        let entries_max = self.layer.entries_max(call);
        if request.entries.len() <= entries_max {
            return self.layer.call(call, &|| self.backend.append(request)).await;
        }
        let part = Append { entries: request.entries[..entries_max].to_vec(), ..request.clone() };
        let mut results = self.layer.call(call, &|| self.backend.append(&part)).await?;
        results.resize_with(request.entries.len(), || Err(left_out(call)));
        Ok(results)
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        let call = Call::new(self.backend.name(), Operation::Trim);
        self.layer.call(call, &|| self.backend.trim(request)).await
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        let call = Call::new(self.backend.name(), Operation::Inspect);
        self.layer.call(call, &|| self.backend.inspect(request)).await
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        let call = Call::new(self.backend.name(), Operation::Read).block(request.block);
        let request = &Read { limit: request.limit.min(self.layer.entries_max(call)), ..request.clone() };
        self.layer.call(call, &|| self.backend.read(request)).await
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        let call = Call::new(self.backend.name(), Operation::EnsureGroup);
        self.layer.call(call, &|| self.backend.ensure_group(request)).await
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        let call = Call::new(self.backend.name(), Operation::ReadGroup).block(request.block);
        let request =
            &ReadGroup { limit: request.limit.min(self.layer.entries_max(call)), ..request.clone() };
        self.layer.call(call, &|| self.backend.read_group(request)).await
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        let call = Call::new(self.backend.name(), Operation::ReadPending);
        let request =
            &ReadPending { limit: request.limit.min(self.layer.entries_max(call)), ..request.clone() };
        self.layer.call(call, &|| self.backend.read_pending(request)).await
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        let call = Call::new(self.backend.name(), Operation::Claim);
        let request = &Claim { limit: request.limit.min(self.layer.entries_max(call)), ..request.clone() };
        self.layer.call(call, &|| self.backend.claim(request)).await
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        let call = Call::new(self.backend.name(), Operation::Heartbeat);
        self.layer.call(call, &|| self.backend.heartbeat(request)).await
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        let call = Call::new(self.backend.name(), Operation::Ack);
        self.layer.call(call, &|| self.backend.ack(request)).await
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        let call = Call::new(self.backend.name(), Operation::Leave);
        self.layer.call(call, &|| self.backend.leave(request)).await
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        let call = Call::new(self.backend.name(), Operation::DeadLetter);
        self.layer.call(call, &|| self.backend.dead_letter(request)).await
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        let call = Call::new(self.backend.name(), Operation::DeadKeys);
        self.layer.call(call, &|| self.backend.dead_keys(request)).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        let call = Call::new(self.backend.name(), Operation::Redrive);
        self.layer.call(call, &|| self.backend.redrive(request)).await
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        let call = Call::new(self.backend.name(), Operation::Remove);
        self.layer.call(call, &|| self.backend.remove(request)).await
    }

    async fn close(&self) {
        self.backend.close().await;
    }
}

#[async_trait]
impl<B: CheckpointBackend, L: Layer> CheckpointBackend for Layered<B, L> {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    async fn load(&self, request: &Subscription) -> Result<Option<Checkpoint>> {
        let call = Call::new(self.backend.name(), Operation::Load);
        self.layer.call(call, &|| self.backend.load(request)).await
    }

    async fn list(&self, request: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        let call = Call::new(self.backend.name(), Operation::List);
        self.layer.call(call, &|| self.backend.list(request)).await
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        let call = Call::new(self.backend.name(), Operation::Acquire);
        self.layer.call(call, &|| self.backend.acquire(request)).await
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        let call = Call::new(self.backend.name(), Operation::Renew);
        self.layer.call(call, &|| self.backend.renew(request)).await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        let call = Call::new(self.backend.name(), Operation::Release);
        self.layer.call(call, &|| self.backend.release(request)).await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        let call = Call::new(self.backend.name(), Operation::Advance);
        self.layer.call(call, &|| self.backend.advance(request)).await
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        let call = Call::new(self.backend.name(), Operation::Reset);
        self.layer.call(call, &|| self.backend.reset(request)).await
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        let call = Call::new(self.backend.name(), Operation::Attempts);
        self.layer.call(call, &|| self.backend.attempts(request)).await
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        let call = Call::new(self.backend.name(), Operation::NoteAttempts);
        self.layer.call(call, &|| self.backend.note_attempts(request)).await
    }

    async fn close(&self) {
        self.backend.close().await;
    }
}

#[async_trait]
impl<B: AtomicSettle, L: Layer> AtomicSettle for Layered<B, L> {
    async fn settle(&self, request: &Settle) -> Result<Settled> {
        let call = Call::new(StreamBackend::name(&self.backend), Operation::Settle);
        self.layer.call(call, &|| self.backend.settle(request)).await
    }
}

#[async_trait]
impl<B: TransactionalCheckpoint, L: Layer> TransactionalCheckpoint for Layered<B, L> {
    type Tx = B::Tx;

    async fn begin(&self) -> Result<Self::Tx> {
        let call = Call::new(self.backend.name(), Operation::Begin);
        self.layer.call(call, &|| self.backend.begin()).await
    }

    async fn settled(&self, tx: &mut Self::Tx, request: &Settlement) -> Result<Vec<EntryId>> {
        let call = Call::new(self.backend.name(), Operation::Settled);
        let once = Mutex::new(Some(tx));
        let attempt = || -> BoxFuture<'_, _> {
            let tx = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            Box::pin(async move {
                let tx = tx.ok_or_else(ended)?;
                self.backend.settled(tx, request).await.map_err(|error| error.with_retry(Retry::Never))
            })
        };
        self.layer.call(call, &attempt).await
    }

    async fn commit(&self, tx: Self::Tx, request: &Settlement) -> Result<Committed> {
        let call = Call::new(self.backend.name(), Operation::Commit);
        let once = Mutex::new(Some(tx));
        let attempt = || -> BoxFuture<'_, _> {
            let tx = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            Box::pin(async move {
                let tx = tx.ok_or_else(ended)?;
                // A layer cannot repeat it: the transaction has ended.
                self.backend.commit(tx, request).await.map_err(|error| error.with_retry(Retry::Never))
            })
        };
        self.layer.call(call, &attempt).await
    }
}

fn left_out(call: Call) -> Error {
    Error::new(ErrorKind::Unavailable, "only a part of the batch was carried out: try again with the rest")
        .with("backend", call.backend)
        .with("operation", call.operation)
}

fn ended() -> Error {
    Error::new(ErrorKind::Invalid, "the transaction has ended: begin another one")
}
