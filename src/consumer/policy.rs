//! When what is settled is saved: pure.

use std::time::Duration;

use super::settings::CheckpointPolicy;

/// Under load, so many entries make a save worth its round trip.
const COALESCE_ENTRIES: usize = 1_000;
/// Saves come no more often than this, unless so many are unsaved; and none waits longer. Where many consumers each see a
/// few hundred entries a second, a save for each would cost more than all the rest.
const COALESCE_DELAY: Duration = Duration::from_millis(25);
/// Where a policy counts entries or bytes, a save waits no longer than this.
const COUNT_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct SavePolicy {
    policy: CheckpointPolicy,
    /// When the oldest unsaved entry was settled.
    since: Option<Duration>,
    /// When the last save began.
    last: Option<Duration>,
    bytes: u64,
}

impl SavePolicy {
    pub(crate) fn new(policy: CheckpointPolicy) -> Self {
        Self { policy, since: None, last: None, bytes: 0 }
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
        self.last = Some(now);
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
    pub(crate) fn when_idle(&self, now: Duration) -> bool {
        match self.policy {
            CheckpointPolicy::Coalesced => self.last.is_none_or(|last| now >= last + COALESCE_DELAY),
            CheckpointPolicy::EveryAck => true,
            CheckpointPolicy::Entries(_) | CheckpointPolicy::Bytes(_) | CheckpointPolicy::Interval(_) => {
                false
            }
        }
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
