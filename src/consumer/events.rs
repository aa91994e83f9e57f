//! What goes into the machine and what comes out of it.

use std::time::Duration;

use super::{HandlerError, OnExhausted, book::Note, burials::Burial, handler::Verdict, ledger::Save};
use crate::{Attempts, Backoff, Delivery, Doom, EntryId, Error, Position, backend::Fate};

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<E> {
    /// The read that was asked for brought these.
    Read(Vec<Delivery>),
    /// Deliveries that came another way: the consumer's own pending entries, or claimed ones.
    Recovered(Vec<Delivery>),
    /// What the store remembers of attempts at entries that come next.
    Recalled(Vec<Attempts>),
    /// Pending entries that left the stream, where the policy says to go on without them.
    Gone(Vec<EntryId>),
    /// What lanes report.
    Finished(Vec<Finished<E>>),
    /// The save that was asked for is durable. The checkpoint stands there, if that is of the epoch that is still ours.
    Saved(Save, Option<EntryId>),
    /// The save failed. Try again at this time.
    NotSaved(Save, Duration),
    /// What became of the burials that were asked for, in their order. `None`: settled before, in a transaction.
    Buried(Vec<Option<Fate>>),
    /// They failed. Try again at this time.
    NotBuried(Duration),
    /// The note that was asked for is durable.
    Noted,
    /// It failed. Try again at this time.
    NotNoted(Duration),
    /// The position was loaded anew.
    Resumed(Position),
    /// Others may have claimed what we held: forget what has not been started.
    Lapsed,
    /// Time has passed.
    Tick,
    /// Stop: start nothing more.
    Stop,
}

/// Which lane a chunk runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) key: Option<u64>,
    /// What runs there was noted before, and one such runs at a time, lest it is blamed for another.
    pub(crate) alone: bool,
}

/// What a lane reports.
#[derive(Debug)]
pub(crate) enum Finished<E> {
    /// Handled, with so many bytes of fields in all.
    Done { ids: Vec<EntryId>, bytes: u64 },
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
    Failed { slot: Slot, deliveries: Vec<Delivery>, failure: Failure<E>, rest: Vec<Delivery> },
    /// The lane is free; `rest` was not started.
    Idle { slot: Slot, rest: Vec<Delivery> },
}

/// How a handler failed.
#[derive(Debug)]
pub(crate) struct Failure<E> {
    pub(crate) error: E,
    pub(crate) verdict: Verdict,
    /// Which of several deliveries is at fault, if the handler said so.
    pub(crate) index: Option<usize>,
    /// What those before it did took no effect.
    pub(crate) rolled_back: bool,
    /// What is written into a dead letter.
    pub(crate) doom: Doom,
}

impl<E> Finished<E> {
    /// These are handled.
    pub(crate) fn done<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Self {
        let mut bytes = 0;
        let sized = deliveries.into_iter().inspect(|delivery| bytes += delivery.fields().size() as u64);
        let ids = sized.map(Delivery::id).collect();
        Self::Done { ids, bytes }
    }
}

impl Failure<HandlerError> {
    pub(crate) fn new(error: HandlerError, rolled_back: bool) -> Self {
        let (verdict, index, doom) = (error.verdict(), error.index(), error.doom());
        Self { error, verdict, index, rolled_back, doom }
    }
}

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Action<E> {
    /// Read at most this many new entries.
    Read { limit: usize },
    /// Run the handler over these, one after the other, on a free lane.
    Start { slot: Slot, deliveries: Vec<Delivery> },
    /// Save.
    Save(Save),
    /// Write dead letters.
    Bury(Vec<Burial>),
    /// Tell the store of attempts.
    Note(Note),
    /// The entry was given up and settled, by the policy.
    Skipped { id: EntryId, doom: Doom },
    /// The handler has failed with this entry as often as it may, or said to stop. The machine has stopped.
    Exhausted { id: EntryId, attempts: u32, error: E },
    /// As above, for an entry of which nothing is known but what is remembered.
    Doomed { id: EntryId, doom: Doom },
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
    /// Moved to the dead letters, those that were parked included.
    pub(crate) dead_lettered: u64,
    /// Given up and settled by the policy.
    pub(crate) given_up: u64,
    /// Not dead-lettered, because another consumer held them by then.
    pub(crate) refused: u64,
}

impl Counts {
    /// How many were delivered and came to an end here.
    pub(crate) fn ended(&self) -> u64 {
        self.settled + self.known + self.lapsed + self.dead_lettered + self.given_up + self.refused
    }
}

/// The limits that the machine keeps.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) read_entries_max: usize,
    pub(crate) in_flight_entries_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) window_entries_max: usize,
    pub(crate) attempts_max: u32,
    pub(crate) crashes_max: u32,
    pub(crate) retry: Backoff,
    pub(crate) retry_elapsed_max: Option<Duration>,
    pub(crate) on_exhausted: OnExhausted,
    /// Whether the store must know of an entry's doom before its letter is written.
    pub(crate) notes_doom: bool,
    /// Whether entries of keys that have dead letters follow them.
    pub(crate) parks: bool,
}
