//! A shared backend is a backend, so that a deployment can choose one by configuration: `Arc<dyn StreamBackend>`.
//!
//! No trait here has provided methods, so the compiler finds a method that was forgotten.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;

use super::{
    Ack, Acked, Acquire, Acquired, Advance, Advanced, Append, AtomicSettle, Beat, BuryLetters,
    CheckpointBackend, Claim, Claimed, Committed, DeadKeys, EnsureGroup, Fate, Heartbeat, Inspect, Leave,
    Left, LoadAttempts, NoteAttempts, PendingEntry, Read, ReadGroup, ReadPending, Redrive, Redriven, Release,
    Removal, Renew, ResetCheckpoint, Settle, Settled, Settlement, StreamBackend, StreamCapabilities,
    StreamState, TransactionalCheckpoint, Trim,
};
use crate::{
    Attempts, Checkpoint, Delivery, Entry, EntryId, Epoch, GroupName, Result, StreamName, Subscription,
};

/// Methods as `async_trait` writes them, without a future of their own around the one that is there.
macro_rules! forward {
    ($(async fn $name:ident(&self $(, $request:ident: &$Request:ty)?) $(-> $Output:ty)?;)*) => {$(
        forward!(@ $name, ($($request: $Request)?), ($($Output)?));
    )*};
    (@ $name:ident, (), ($($Output:ty)?)) => {
        fn $name<'s, 'f>(&'s self) -> Pin<Box<dyn Future<Output = ($($Output)?)> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            T::$name(self)
        }
    };
    (@ $name:ident, ($request:ident: $Request:ty), ($Output:ty)) => {
        fn $name<'s, 'r, 'f>(
            &'s self,
            $request: &'r $Request,
        ) -> Pin<Box<dyn Future<Output = $Output> + Send + 'f>>
        where
            's: 'f,
            'r: 'f,
            Self: 'f,
        {
            T::$name(self, $request)
        }
    };
}

impl<T: StreamBackend + ?Sized> StreamBackend for Arc<T> {
    fn name(&self) -> &'static str {
        T::name(self)
    }

    fn capabilities(&self) -> StreamCapabilities {
        T::capabilities(self)
    }

    forward! {
        async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>>;
        async fn trim(&self, request: &Trim) -> Result<u64>;
        async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>>;
        async fn read(&self, request: &Read) -> Result<Vec<Entry>>;
        async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool>;
        async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>>;
        async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>>;
        async fn claim(&self, request: &Claim) -> Result<Claimed>;
        async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat>;
        async fn ack(&self, request: &Ack) -> Result<Acked>;
        async fn leave(&self, request: &Leave) -> Result<Left>;
        async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>>;
        async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>>;
        async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>>;
        async fn remove(&self, request: &Removal) -> Result<u64>;
        async fn close(&self);
    }
}

impl<T: CheckpointBackend + ?Sized> CheckpointBackend for Arc<T> {
    fn name(&self) -> &'static str {
        T::name(self)
    }

    forward! {
        async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>>;
        async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>>;
        async fn acquire(&self, request: &Acquire) -> Result<Acquired>;
        async fn renew(&self, request: &Renew) -> Result<()>;
        async fn release(&self, request: &Release) -> Result<()>;
        async fn advance(&self, request: &Advance) -> Result<Advanced>;
        async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch>;
        async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>>;
        async fn note_attempts(&self, request: &NoteAttempts) -> Result<()>;
        async fn close(&self);
    }
}

impl<T: AtomicSettle + ?Sized> AtomicSettle for Arc<T> {
    forward! {
        async fn settle(&self, request: &Settle) -> Result<Settled>;
    }
}

#[async_trait]
impl<T: TransactionalCheckpoint + ?Sized> TransactionalCheckpoint for Arc<T> {
    type Tx = T::Tx;

    async fn begin(&self) -> Result<Self::Tx> {
        T::begin(self).await
    }

    async fn settled(&self, tx: &mut Self::Tx, request: &Settlement) -> Result<Vec<EntryId>> {
        T::settled(self, tx, request).await
    }

    async fn commit(&self, tx: Self::Tx, request: &Settlement) -> Result<Committed> {
        T::commit(self, tx, request).await
    }
}
