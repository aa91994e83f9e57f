//! Trimming what no checkpoint needs any more, beside the appends.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    settings::{ProducerSettings, Retention},
    stats::{Counters, add},
};
use crate::{
    EntryId, Result, StreamName,
    backend::{CheckpointBackend, CheckpointBackendExt, StreamBackend, Trim, TrimLimit},
    clock::{self, Clock},
};

/// The appender's end: says that entries were appended, at most once an interval.
#[derive(Debug)]
pub(super) struct TrimSignal {
    sender: mpsc::Sender<u64>,
    interval: Duration,
    next_at: Duration,
}

impl TrimSignal {
    /// The first append signals at once: a process that appends once and ends must trim too, or a stream that is only fed
    /// by such processes would grow for ever.
    pub(super) fn new(settings: &ProducerSettings) -> (Self, mpsc::Receiver<u64>) {
        // One place: while a trim is at work, one more signal is worth keeping.
        let (sender, receiver) = mpsc::channel(1);
        (Self { sender, interval: settings.trim_interval, next_at: Duration::ZERO }, receiver)
    }

    /// Never waits. If the place is taken, that signal stands for this one: its id is older, so its trim removes less.
    pub(super) fn appended(&mut self, newest: EntryId, elapsed: Duration) {
        if elapsed >= self.next_at {
            self.next_at = elapsed.saturating_add(self.interval);
            let _ = self.sender.try_send(newest.ms);
        }
    }
}

/// The other end: trims, one at a time.
#[derive(Debug)]
pub(super) struct Trimmer<S> {
    pub(super) stream: StreamName,
    pub(super) backend: Arc<S>,
    pub(super) protect: Vec<Arc<dyn CheckpointBackend>>,
    pub(super) retention: Retention,
    pub(super) force: bool,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
}

impl<S: StreamBackend> Trimmer<S> {
    /// Until the appender has ended and its last signal is done.
    pub(super) async fn run(self, mut signals: mpsc::Receiver<u64>) {
        while let Some(newest_ms) = signals.recv().await {
            self.trim(newest_ms).await;
        }
    }

    async fn trim(&self, newest_ms: u64) {
        let Some(limit) = self.limit(newest_ms) else { return };
        let keep_from = if self.force {
            None
        } else {
            match self.needed_from().await {
                Ok(keep_from) => keep_from,
                Err(error) => {
                    // Not to know what a checkpoint needs is to need everything.
                    add(&self.counters.trims_skipped, 1);
                    tracing::warn!(stream = %self.stream, %error, "not trimmed: the checkpoints cannot be read");
                    return;
                }
            }
        };
        let request = Trim::new(self.stream.clone(), limit).approximate().keep_from(keep_from);
        match self.backend.trim(&request).await {
            Ok(trimmed) => {
                add(&self.counters.trims, 1);
                add(&self.counters.trimmed, trimmed);
                tracing::debug!(stream = %self.stream, trimmed, ?limit, ?keep_from, "stream trimmed");
            }
            Err(error) => {
                add(&self.counters.trims_failed, 1);
                tracing::warn!(stream = %self.stream, %error, "not trimmed: the next trim tries again");
            }
        }
    }

    /// `None` if there is nothing to trim by.
    ///
    /// An entry is as old as its id says, and ids carry the time of the server. The newest id, which this producer has just
    /// received, is the server's clock as of the last append; ours may be wrong. The earlier of the two counts: a clock that
    /// is ahead, here or (through an id from the future, which an append with an id can leave behind) there, must not remove
    /// entries before their time. If both are ahead nothing helps; if one is behind, entries stay longer by as much.
    fn limit(&self, newest_ms: u64) -> Option<TrimLimit> {
        match self.retention {
            Retention::Age(age) => {
                let now = self.clock.now().as_millis().min(newest_ms);
                let below = now.checked_sub(clock::millis(age)).filter(|ms| *ms > 0)?;
                Some(TrimLimit::Below(EntryId::new(below, 0)))
            }
            Retention::Len(len) => Some(TrimLimit::Len(len)),
            Retention::Forever => None,
        }
    }

    /// The first id that some checkpoint of a protected store may still need; `None` if there is no checkpoint.
    ///
    /// What is settled ahead of a watermark is kept as well: the holes between it are needed, and a trim has one bound.
    ///
    /// A checkpoint may move between this and the trim. Watermarks only rise (G3), so the bound is then too low, which
    /// keeps too much. The exception is a reset, the only thing that moves a watermark back: entries that it goes back for
    /// may be trimmed if it comes in between, as if it had come after the trim. The consumer reports the gap (G7). The same
    /// goes for the first checkpoint of a new group: until it is stored, nobody knows of its need.
    async fn needed_from(&self) -> Result<Option<EntryId>> {
        let mut needed = None;
        for store in &self.protect {
            // Above the greatest id there is nothing to need, hence `None` of `next` does not count as a need.
            if let Some(next) = store.oldest_watermark(&self.stream).await?.and_then(EntryId::next) {
                needed = Some(needed.map_or(next, |needed: EntryId| needed.min(next)));
            }
        }
        Ok(needed)
    }
}
