//! What is known of an entry, and of a consumer.

use std::{collections::BTreeSet, time::Duration};

use highwater::{ConsumerName, EntryId};

/// One entry, by the number that it carries.
#[derive(Debug)]
pub struct Fact {
    pub id: EntryId,
    pub key: u64,
    /// Which life of the stream it belongs to.
    pub life: u32,
    /// It left the stream, after so many reports of gaps and resets; and whether nobody had handled it.
    pub removed: Option<(usize, bool)>,
    /// An operator said that it needs no handling.
    pub excused: bool,
    /// How often it was handled since the checkpoint was last set back before it: by effects that were committed, or by
    /// handlers that succeeded.
    pub handled: u32,
    /// How often it became a dead letter since then.
    pub buried: u32,
    /// It was handled, buried or excused at some time.
    pub ever: bool,
    /// Its dead letter, while it lies there.
    pub letter: Option<Filed>,
    /// What may lead to that since then, and in all.
    pub attempts: Attempted,
    pub in_all: Attempted,
    /// How often a process was killed with it, and the store did not know that it had started it, since it could know.
    pub unmarked: u32,
}

/// A dead letter that lies there.
#[derive(Debug, Clone, Copy)]
pub struct Filed {
    pub by: usize,
    pub session: u32,
    /// How many letters there were before it.
    pub nth: u64,
}

/// What may lead to a dead letter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempted {
    /// Failures of handlers.
    pub failures: u32,
    pub rejections: u32,
    /// Processes that were killed when the store had it as started by them.
    pub crashes: u32,
}

/// What there is to see for a consumer that begins.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The time between two resets.
    pub era: u32,
    /// This pause of the subscription stands.
    pub paused: Option<u32>,
    /// What is promised to be settled.
    pub promised: BTreeSet<EntryId>,
}

/// A consumer, as far as the auditor knows it.
#[derive(Debug, Default)]
pub struct Witness {
    pub name: Option<ConsumerName>,
    /// What it has seen last, and what it had seen when it began.
    pub seen: Seen,
    pub began: Seen,
    /// How often it has begun anew.
    pub session: u32,
    /// How many dead letters had been written by then.
    pub letters: u64,
    /// Up to here, it could not know whether it still holds what it held.
    pub in_doubt: EntryId,
    /// What it has handled: places among the facts.
    pub succeeded: BTreeSet<usize>,
    /// Something took place that may bring to it again what it has handled.
    pub forgiven: bool,
    /// What its handlers have failed with since it was last in doubt of what it holds.
    pub failed: BTreeSet<EntryId>,
    /// Handlers that run: session, key, entry.
    pub running: Vec<(u32, u64, EntryId)>,
    /// Those of them that a group brought which is gone: nobody is told that they run, also where the next one brings them here.
    pub untold: BTreeSet<EntryId>,
    pub calls: (Duration, u32),
    /// What its process has died of.
    pub blamed: BTreeSet<EntryId>,
}

pub fn is_wanted(fact: &Fact) -> bool {
    fact.handled == 0 && fact.buried == 0 && fact.removed.is_none() && !fact.excused
}
