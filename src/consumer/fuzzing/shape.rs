//! Which kind of consumer a case is about.

use std::{sync::Arc, time::Duration};

use crate::{
    Backoff, EntryId, Position,
    clock::Timestamp,
    consumer::{
        CheckpointPolicy, OnExhausted,
        ledger::{Held, Ledger},
        machine::{Limits, Machine},
        policy::SavePolicy,
        queue::{Order, Queue},
        tracker::Tracker,
    },
    fuzzing::Source,
};

/// How many keys there are.
const KEYS: u64 = 3;

/// What runs in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    PerEntry,
    PerBatch,
    Transaction {
        /// The commit acks and advances, too.
        fused: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordering {
    Strict { chunk_max: usize },
    Unordered { lanes: usize },
    Keyed { lanes: usize },
}

#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) shared: bool,
    pub(super) kind: Kind,
    pub(super) ordering: Ordering,
    policy: CheckpointPolicy,
    pub(super) limits: Limits,
    ahead_bytes_max: usize,
}

pub(super) fn key(id: EntryId) -> u64 {
    id.ms % KEYS
}

impl Shape {
    pub(super) fn of(source: &mut Source<'_>) -> Self {
        let shared = source.one_in(2);
        let kind = match source.below(4) {
            0 | 1 => Kind::PerEntry,
            2 => Kind::PerBatch,
            _ => Kind::Transaction { fused: !shared || source.one_in(2) },
        };
        let lanes = 1 + source.below(4);
        let ordering = match (source.below(3), kind) {
            (1, Kind::PerEntry) => Ordering::Unordered { lanes },
            (2, Kind::PerEntry) => Ordering::Keyed { lanes },
            (1, Kind::Transaction { .. }) if shared => Ordering::Unordered { lanes },
            (2, Kind::Transaction { .. }) if shared => Ordering::Keyed { lanes },
            _ => Ordering::Strict { chunk_max: lanes * 2 - 1 },
        };
        let policy = match source.below(5) {
            0 => CheckpointPolicy::Coalesced,
            1 => CheckpointPolicy::EveryAck,
            2 => CheckpointPolicy::Entries(3),
            3 => CheckpointPolicy::Bytes(40),
            _ => CheckpointPolicy::Interval(Duration::from_millis(20)),
        };
        let in_flight_entries_max = 1 + source.below(16);
        let limits = Limits {
            read_entries_max: 1 + source.below(8),
            in_flight_entries_max,
            in_flight_bytes_max: if source.one_in(2) { 1 + source.below(200) } else { 1 << 20 },
            window_entries_max: in_flight_entries_max + source.below(30),
            attempts_max: if source.one_in(2) { 1 + source.below(3) as u32 } else { u32::MAX },
            crashes_max: 3,
            retry_elapsed_max: None,
            on_exhausted: [OnExhausted::DeadLetter, OnExhausted::Skip, OnExhausted::Stop][source.below(3)],
            notes_doom: !shared,
            parks: false,
            // Without jitter a case is the same each time.
            retry: Backoff {
                first: Duration::from_millis(5),
                max: Duration::from_millis(40),
                jitter: 0.0,
                ..Backoff::default()
            },
        };
        Self { shared, kind, ordering, policy, limits, ahead_bytes_max: 20 + source.below(200) }
    }

    pub(super) fn machine(&self, stored: &Position) -> Machine {
        let ledger = if self.shared {
            Ledger::Shared(Held::new(stored.clone()))
        } else {
            let tracker = Tracker::new(stored.clone());
            Ledger::Exclusive { tracker, ahead_bytes_max: self.ahead_bytes_max, unsaved: 0 }
        };
        let order = match self.ordering {
            Ordering::Strict { chunk_max } => Order::Strict { chunk_max },
            Ordering::Unordered { lanes } => Order::Unordered { lanes },
            Ordering::Keyed { lanes } => Order::Keyed { lanes, key: Arc::new(|delivery| key(delivery.id())) },
        };
        Machine::new(
            self.limits.clone(),
            ledger,
            Queue::new(order),
            SavePolicy::new(self.policy),
            Timestamp::default(),
        )
    }

    /// How many lanes may run at once.
    pub(super) fn lanes(&self) -> usize {
        match self.ordering {
            Ordering::Strict { .. } => 1,
            Ordering::Unordered { lanes } | Ordering::Keyed { lanes } => lanes,
        }
    }

    pub(super) fn transactional(&self) -> bool {
        matches!(self.kind, Kind::Transaction { .. })
    }
}
