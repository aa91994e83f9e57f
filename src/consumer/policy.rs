//! When what is settled is saved: pure.

use std::time::Duration;

use super::settings::CheckpointPolicy;

/// Under load, so many entries make a save worth its round trip.
const COALESCE_ENTRIES: usize = 1_000;
/// Under load, a save waits no longer than this.
const COALESCE_DELAY: Duration = Duration::from_millis(5);
/// Where a policy counts entries or bytes, a save waits no longer than this.
const COUNT_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct SavePolicy {
    policy: CheckpointPolicy,
    /// When the oldest unsaved entry was settled.
    since: Option<Duration>,
    bytes: u64,
}

impl SavePolicy {
    pub(crate) fn new(policy: CheckpointPolicy) -> Self {
        Self { policy, since: None, bytes: 0 }
    }

    pub(crate) fn every_ack(&self) -> bool {
        self.policy == CheckpointPolicy::EveryAck
    }

    /// Entries were settled.
    pub(crate) fn settled(&mut self, bytes: u64, now: Duration) {
        self.since.get_or_insert(now);
        self.bytes += bytes;
    }

    /// A save has begun that leaves so many unsaved.
    pub(crate) fn saving(&mut self, left: usize, now: Duration) {
        self.since = (left > 0).then_some(now);
        self.bytes = 0;
    }

    /// Whether to save now, though there is more to handle.
    pub(crate) fn due(&self, unsaved: usize, now: Duration) -> bool {
        let full = match self.policy {
            CheckpointPolicy::Coalesced => unsaved >= COALESCE_ENTRIES,
            CheckpointPolicy::EveryAck => true,
            CheckpointPolicy::Entries(entries) => unsaved as u64 >= entries,
            CheckpointPolicy::Bytes(bytes) => self.bytes >= bytes,
            CheckpointPolicy::Interval(_) => false,
        };
        full || now >= self.due_at()
    }

    /// Whether to save as soon as nothing is left to handle.
    pub(crate) fn when_idle(&self) -> bool {
        matches!(self.policy, CheckpointPolicy::Coalesced | CheckpointPolicy::EveryAck)
    }

    /// When to save at the latest.
    pub(crate) fn due_at(&self) -> Duration {
        let delay = match self.policy {
            CheckpointPolicy::Coalesced => COALESCE_DELAY,
            CheckpointPolicy::EveryAck => Duration::ZERO,
            CheckpointPolicy::Entries(_) | CheckpointPolicy::Bytes(_) => COUNT_DELAY,
            CheckpointPolicy::Interval(interval) => interval,
        };
        self.since.unwrap_or_default() + delay
    }
}
