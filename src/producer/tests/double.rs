//! Memory behind a gate, with a script of failures, that records what it was asked.

use crate::backend::{BuryLetters, DeadKeys, Fate as Buried, Redrive, Redriven};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::{
    Delivery, Entry, EntryId, Error, ErrorKind, Outcome, Result,
    backend::{
        Ack, Acked, Append, Beat, Claim, Claimed, EnsureGroup, Heartbeat, Inspect, Leave, Left, PendingEntry,
        Read, ReadGroup, ReadPending, Removal, StreamBackend, StreamCapabilities, StreamState, Trim,
    },
    memory::Memory,
};

/// What becomes of one append.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// It fails before its effect, and says so.
    Before,
    /// It takes place, and the reply is lost.
    After,
    /// It takes place, and the last result is left out.
    Short,
    /// It takes place, and there is a result of nothing.
    Long,
    Panic,
}

#[derive(Debug)]
pub(super) struct Double {
    pub(super) memory: Memory,
    /// Each append takes one permit before its effect.
    pub(super) gate: Semaphore,
    /// Each trim takes one permit before its effect.
    pub(super) trim_gate: Semaphore,
    batches: Mutex<Vec<usize>>,
    trims: Mutex<Vec<Trim>>,
    fates: Mutex<VecDeque<Fate>>,
    failing_trims: AtomicUsize,
}

const OPEN: usize = Semaphore::MAX_PERMITS / 2;

impl Double {
    pub(super) fn open() -> Self {
        Self::over(Memory::new(), OPEN)
    }

    pub(super) fn gated() -> Self {
        Self::over(Memory::new(), 0)
    }

    pub(super) fn over(memory: Memory, permits: usize) -> Self {
        Self {
            memory,
            gate: Semaphore::new(permits),
            trim_gate: Semaphore::new(OPEN),
            batches: Mutex::default(),
            trims: Mutex::default(),
            fates: Mutex::default(),
            failing_trims: AtomicUsize::new(0),
        }
    }

    pub(super) fn with_fates(self, fates: impl IntoIterator<Item = Fate>) -> Self {
        self.fates.lock().unwrap().extend(fates);
        self
    }

    pub(super) fn let_all_pass(&self) {
        self.gate.add_permits(OPEN);
    }

    /// How many entries each append had, in the order of their arrival.
    pub(super) fn batches(&self) -> MutexGuard<'_, Vec<usize>> {
        self.batches.lock().unwrap()
    }

    pub(super) fn trims(&self) -> Vec<Trim> {
        self.trims.lock().unwrap().clone()
    }

    pub(super) fn trims_to_fail(&self, count: usize) {
        self.failing_trims.store(count, SeqCst);
    }

    fn lost(outcome: Outcome) -> Error {
        Error::new(ErrorKind::Unavailable, "the script says so").with_outcome(outcome)
    }
}

#[async_trait]
impl StreamBackend for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn capabilities(&self) -> StreamCapabilities {
        self.memory.capabilities()
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        self.batches().push(request.entries.len());
        self.gate.acquire().await.unwrap().forget();
        let fate = self.fates.lock().unwrap().pop_front();
        match fate {
            None => self.memory.append(request).await,
            Some(Fate::Before) => Err(Self::lost(Outcome::NotApplied)),
            Some(Fate::After) => {
                self.memory.append(request).await?;
                Err(Self::lost(Outcome::Unknown))
            }
            Some(Fate::Short) => {
                let mut results = self.memory.append(request).await?;
                results.pop();
                Ok(results)
            }
            Some(Fate::Long) => {
                let mut results = self.memory.append(request).await?;
                results.push(Ok(EntryId::MAX));
                Ok(results)
            }
            Some(Fate::Panic) => panic!("the script says so"),
        }
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        self.trims.lock().unwrap().push(request.clone());
        self.trim_gate.acquire().await.unwrap().forget();
        if self.failing_trims.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Self::lost(Outcome::NotApplied));
        }
        self.memory.trim(request).await
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        self.memory.inspect(request).await
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        self.memory.read(request).await
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        self.memory.ensure_group(request).await
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        self.memory.read_group(request).await
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        self.memory.read_pending(request).await
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        self.memory.claim(request).await
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        self.memory.heartbeat(request).await
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        self.memory.ack(request).await
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        self.memory.leave(request).await
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Buried>> {
        self.memory.dead_letter(request).await
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        self.memory.dead_keys(request).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        self.memory.redrive(request).await
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        self.memory.remove(request).await
    }

    async fn close(&self) {
        StreamBackend::close(&self.memory).await;
    }
}
