//! A shared backend is a backend, so that a deployment can choose one by configuration: `Arc<dyn StreamBackend>`.
//!
//! No trait here has provided methods, so the compiler finds a method that was forgotten.

use std::sync::Arc;

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

#[async_trait]
impl<T: StreamBackend + ?Sized> StreamBackend for Arc<T> {
    fn name(&self) -> &'static str {
        T::name(self)
    }

    fn capabilities(&self) -> StreamCapabilities {
        T::capabilities(self)
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        T::append(self, request).await
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        T::trim(self, request).await
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        T::inspect(self, request).await
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        T::read(self, request).await
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        T::ensure_group(self, request).await
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        T::read_group(self, request).await
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        T::read_pending(self, request).await
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        T::claim(self, request).await
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        T::heartbeat(self, request).await
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        T::ack(self, request).await
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        T::leave(self, request).await
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        T::dead_letter(self, request).await
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        T::dead_keys(self, request).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        T::redrive(self, request).await
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        T::remove(self, request).await
    }

    async fn close(&self) {
        T::close(self).await;
    }
}

#[async_trait]
impl<T: CheckpointBackend + ?Sized> CheckpointBackend for Arc<T> {
    fn name(&self) -> &'static str {
        T::name(self)
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        T::load(self, subscription).await
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        T::list(self, stream).await
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        T::acquire(self, request).await
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        T::renew(self, request).await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        T::release(self, request).await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        T::advance(self, request).await
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        T::reset(self, request).await
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        T::attempts(self, request).await
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        T::note_attempts(self, request).await
    }

    async fn close(&self) {
        T::close(self).await;
    }
}

#[async_trait]
impl<T: AtomicSettle + ?Sized> AtomicSettle for Arc<T> {
    async fn settle(&self, request: &Settle) -> Result<Settled> {
        T::settle(self, request).await
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
