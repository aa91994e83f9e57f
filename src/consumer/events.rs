//! What goes into the machine and what comes out of it.

use std::time::Duration;

use super::ledger::Save;
use crate::{Backoff, Delivery, EntryId, Error, Position};

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<E> {
    /// The read that was asked for brought these.
    Read(Vec<Delivery>),
    /// Deliveries that came another way: the consumer's own pending entries, or claimed ones.
    Recovered(Vec<Delivery>),
    /// Pending entries that left the stream, where the policy says to go on without them.
    Gone(Vec<EntryId>),
    /// What lanes report.
    Finished(Vec<Finished<E>>),
    /// The save that was asked for is durable. The checkpoint stands there, if that is of the epoch that is still ours.
    Saved(Save, Option<EntryId>),
    /// The save failed. Try again at this time.
    NotSaved(Save, Duration),
    /// The position was loaded anew.
    Resumed(Position),
    /// Others may have claimed what we held: forget what has not been started.
    Lapsed,
    /// Time has passed.
    Tick,
    /// Stop: start nothing more.
    Stop,
}

/// What a lane reports.
#[derive(Debug)]
pub(crate) enum Finished<E> {
    /// Handled.
    Done(EntryId, u64),
    /// Settled before, so what was done with it took no effect. It is left to be acked.
    Before(EntryId, u64),
    /// Handled and durably settled.
    Committed(EntryId, u64),
    /// The checkpoint stands there, after what was committed.
    Advanced(EntryId),
    /// The store could not begin or commit: the same again at this time, which is no failure of the entries.
    Deferred { deliveries: Vec<Delivery>, again: Duration },
    /// Nothing more can be committed. The shell ends the session.
    Broken(Error),
    /// The handler failed with these; `rest` was not started.
    Failed { deliveries: Vec<Delivery>, error: E, reject: bool, rest: Vec<Delivery> },
    /// The lane is free; `rest` was not started.
    Idle { key: Option<u64>, rest: Vec<Delivery> },
}

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Action<E> {
    /// Read at most this many new entries.
    Read { limit: usize },
    /// Run the handler over these, one after the other, on a free lane.
    Start { key: Option<u64>, deliveries: Vec<Delivery> },
    /// Save.
    Save(Save),
    /// The handler has failed with this entry as often as it may. The machine has stopped.
    Exhausted { id: EntryId, attempts: u32, error: E },
    /// All that can be finished is finished and saved.
    Drained,
}

/// What the machine has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) settled: u64,
    pub(crate) retried: u64,
    /// Redelivered, and not handled again.
    pub(crate) skipped: u64,
    pub(crate) saved: u64,
    /// Let go before they were started, because others may have claimed them.
    pub(crate) lapsed: u64,
    /// Handled in a transaction that did not take place, since they had been settled before.
    pub(crate) known: u64,
}

/// The limits that the machine keeps.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) read_entries_max: usize,
    pub(crate) in_flight_entries_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) window_entries_max: usize,
    pub(crate) attempts_max: u32,
    pub(crate) retry: Backoff,
}
