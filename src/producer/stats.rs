//! What a producer has done so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a producer, with all its clones, has done since it was built.
///
/// The numbers are read one by one, not at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Entries that are known to be in the stream.
    pub appended: u64,
    /// Entries that were refused before anything was sent: too large, without fields, or after the close.
    pub refused: u64,
    /// Entries that were sent, or would have been, and are known not to be in the stream.
    pub failed: u64,
    /// Entries of which nobody can tell.
    pub unknown: u64,
    /// Calls of the backend that carried these entries.
    pub batches: u64,
    /// Trims that the backend answered.
    pub trims: u64,
    /// Entries that those trims removed.
    pub trimmed: u64,
    /// Trims that failed. The next one makes up for it.
    pub trims_failed: u64,
    /// Trims that were left out, because the checkpoints of a protected store could not be read.
    pub trims_skipped: u64,
}

/// The same, while it is counted. Nothing is decided by these numbers, so their order among each other is of no matter.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) appended: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) trims: AtomicU64,
    pub(super) trimmed: AtomicU64,
    pub(super) trims_failed: AtomicU64,
    pub(super) trims_skipped: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> ProducerStats {
        ProducerStats {
            appended: self.appended.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
            unknown: self.unknown.load(Relaxed),
            batches: self.batches.load(Relaxed),
            trims: self.trims.load(Relaxed),
            trimmed: self.trimmed.load(Relaxed),
            trims_failed: self.trims_failed.load(Relaxed),
            trims_skipped: self.trims_skipped.load(Relaxed),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}
