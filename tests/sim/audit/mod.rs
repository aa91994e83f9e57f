//! The auditor: sees every effect on the stores and every call of a handler at the instant at which it takes place, and
//! knows what must therefore hold.

mod crashes;
mod end;
mod facts;
mod group;
mod handlers;
pub mod letters;
mod moves;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use highwater::{
    ConsumerName, Delivery, EntryId, Epoch, Position, Report,
    backend::{NewEntry, Token},
    clock::Clock,
};

use self::{
    facts::{Attempted, Fact, Filed, Seen, Witness, is_wanted},
    group::Beat,
};
pub use self::{
    handlers::{Ends, Part},
    moves::Intent,
};
use crate::{setup::Setup, trace::Trace};

/// Calls of one consumer at one instant that are no loop yet.
const CALLS_AT_ONCE_MAX: u32 = 2_000;

/// The auditor, shared by all who report to it.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Mutex<State>>);

/// What is known.
#[derive(Debug)]
pub struct State {
    clock: Clock,
    pub setup: Setup,
    pub trace: Trace,
    violation: Option<String>,
    facts: Vec<Fact>,
    /// Where each is, by its number and its id: one that is redriven has another id.
    places: BTreeMap<(u64, EntryId), usize>,
    /// Where the entries of this life are, by their ids.
    numbers: BTreeMap<EntryId, usize>,
    life: u32,
    era: u32,
    /// The checkpoint as it is.
    epoch: Epoch,
    position: Option<Position>,
    /// The checkpoint is of a life of the stream that is over.
    pub stale: bool,
    paused: bool,
    pauses: u32,
    /// A write takes effect that nobody waits for any more.
    pub late: bool,
    /// What an advance that succeeded has covered.
    promised: BTreeSet<EntryId>,
    lease: Option<(ConsumerName, Duration)>,
    pending: BTreeMap<EntryId, ConsumerName>,
    /// The last that this group has delivered.
    delivered: EntryId,
    beats: BTreeMap<ConsumerName, Beat>,
    names: BTreeMap<ConsumerName, usize>,
    /// What the operator is about to do.
    pub intent: Intent,
    /// What the store has as started, and by whom.
    marks: BTreeMap<EntryId, Vec<usize>>,
    /// Consumers whose processes are about to be killed by what they handle.
    pub dying: Vec<usize>,
    witnesses: Vec<Witness>,
    /// Gaps and resets that were reported.
    reports: usize,
    may_gap: bool,
    pub counts: Counts,
    random: fastrand::Rng,
}

/// What a run was like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub entries: u64,
    pub calls: u64,
    pub handled: u64,
    pub duplicates: u64,
    /// What may bring entries again: crashes, losses, stalls, resets.
    pub disruptions: u64,
    pub fenced: u64,
    pub letters: u64,
}

impl Audit {
    pub fn new(setup: Setup, clock: Clock, seed: u64, loud: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            clock,
            setup,
            trace: Trace::new(loud),
            violation: None,
            facts: Vec::new(),
            places: BTreeMap::new(),
            numbers: BTreeMap::new(),
            life: 0,
            era: 0,
            epoch: Epoch::default(),
            position: None,
            stale: false,
            paused: false,
            pauses: 0,
            late: false,
            promised: BTreeSet::new(),
            lease: None,
            pending: BTreeMap::new(),
            delivered: EntryId::ZERO,
            beats: BTreeMap::new(),
            names: BTreeMap::new(),
            intent: Intent::Reset,
            marks: BTreeMap::new(),
            dying: Vec::new(),
            witnesses: vec![Witness::default()],
            reports: 0,
            may_gap: false,
            counts: Counts::default(),
            random: fastrand::Rng::with_seed(seed),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A test that fails while it holds the lock has failed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    pub fn note(&mut self, text: fmt::Arguments<'_>) {
        let now = self.now();
        self.trace.line(now, text);
    }

    /// A guarantee does not hold. The first one counts.
    pub fn violate(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    pub fn verdict(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// A consumer calls a store. Says whether it may: time does not go on while somebody always has something to do.
    pub fn calls(&mut self, who: usize, operation: &str) -> bool {
        let now = self.now();
        self.note(format_args!("c{who} {operation}"));
        let calls = &mut self.witnesses[who].calls;
        *calls = if calls.0 == now { (now, calls.1 + 1) } else { (now, 1) };
        let hot = calls.1 > CALLS_AT_ONCE_MAX;
        if hot {
            self.violate(format!("G16: consumer {who} calls {operation} in a hot loop"));
        }
        !hot
    }

    /// Another consumer, perhaps under the name of one that is gone.
    pub fn started(&mut self, name: &ConsumerName) -> usize {
        let who = self.witnesses.len();
        self.witnesses.push(Witness {
            name: Some(name.clone()),
            began: Seen { era: self.era, ..Seen::default() },
            ..Witness::default()
        });
        self.names.insert(name.clone(), who);
        self.note(format_args!("c{who} starts as {name}"));
        who
    }

    pub fn appended(&mut self, entry: &NewEntry, id: EntryId) {
        let number =
            |name| entry.fields.get(name).and_then(|n| std::str::from_utf8(n).ok()?.parse::<u64>().ok());
        let (Some(n), Some(key)) = (number("n"), number("k")) else { return };
        if self.places.range((n, EntryId::ZERO)..=(n, EntryId::MAX)).next().is_some() {
            self.violate(format!("G12: entry {n} was appended twice"));
        }
        self.come(n, key, id);
    }

    /// There is another entry.
    fn come(&mut self, n: u64, key: u64, id: EntryId) {
        self.places.insert((n, id), self.facts.len());
        self.numbers.insert(id, self.facts.len());
        self.counts.entries += 1;
        self.note(format_args!("{id} is appended"));
        self.facts.push(Fact {
            id,
            key,
            life: self.life,
            removed: None,
            excused: false,
            handled: 0,
            buried: 0,
            ever: false,
            letter: None,
            attempts: Attempted::default(),
            in_all: Attempted::default(),
            unmarked: 0,
        });
    }

    /// The entries that the stream has had in this life.
    pub fn current(&self) -> impl Iterator<Item = &Fact> {
        self.numbers.values().map(|&n| &self.facts[n])
    }

    /// A producer was told that an entry is there, under this id.
    pub fn acknowledged(&mut self, n: u64, id: EntryId) {
        let mut all = self.places.range((n, EntryId::ZERO)..=(n, EntryId::MAX)).map(|((_, id), _)| *id);
        let there = all.find(|there| *there == id);
        if there != Some(id) {
            self.violate(format!("entry {n} was acknowledged as {id}, and it is {there:?}"));
        }
    }

    /// How many entries the stream has had up to this one.
    pub fn ordinal(&self, id: EntryId) -> u64 {
        self.numbers.range(..=id).count() as u64
    }

    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn beats(&self) -> impl Iterator<Item = (&ConsumerName, Token, Duration)> {
        self.beats.iter().map(|(name, beat)| (name, beat.token, beat.until))
    }

    /// Entries are about to leave the stream. Marked before, since a consumer may skip them at once.
    pub fn removing(&mut self, gone: impl Fn(EntryId) -> bool) {
        let (reports, position) = (self.reports, self.position.clone());
        let removed: Vec<_> = self.current().filter(|fact| gone(fact.id)).map(|fact| fact.id).collect();
        self.note(format_args!("removed: {removed:?}"));
        for &n in self.numbers.values() {
            let fact = &mut self.facts[n];
            if gone(fact.id) && fact.removed.is_none() {
                let settled = position.as_ref().is_some_and(|position| position.settles(fact.id));
                // What is settled ahead and left the stream is not told from what was lost: no owner can count it.
                self.may_gap |= position.as_ref().is_none_or(|position| fact.id > position.watermark);
                // What was removed before anybody came is not missing; and after a seek into the middle of the stream, a position
                // does not know how many entries it stands for, so that nobody can count what is deleted behind it.
                let counts = position.as_ref().is_some_and(|position| position.ordinal.is_some());
                fact.removed = Some((reports, is_wanted(fact) && !settled && counts));
            }
        }
    }

    /// The stream is deleted, and with it all that was known of what comes next.
    pub fn end_life(&mut self) {
        self.life += 1;
        self.numbers.clear();
        self.promised.clear();
        self.stale = true;
        self.group_lost();
    }

    /// Something took place after which entries may come again to everybody.
    pub fn disrupted(&mut self) {
        self.counts.disruptions += 1;
        (0..self.witnesses.len()).for_each(|who| self.in_doubt(who));
    }

    /// A consumer cannot know whether it still holds what it held.
    fn in_doubt(&mut self, who: usize) {
        let last = self.numbers.last_key_value().map(|(&id, _)| id).unwrap_or_default();
        let witness = &mut self.witnesses[who];
        (witness.forgiven, witness.in_doubt) = (true, last);
        witness.failed.clear();
    }

    /// A consumer has ended: what it held comes again, to others.
    pub fn ended(&mut self, who: usize) {
        self.counts.disruptions += 1;
        if !self.setup.is_shared() {
            // An owner that ends in order says so, and with that it is forgotten what the one before it may have started.
            self.facts.iter_mut().for_each(|fact| fact.unmarked = 0);
        }
        self.note(format_args!("c{who} is gone"));
    }

    /// A consumer has stopped gracefully.
    pub fn stopped(&mut self, who: usize, report: &Report) {
        // What it did not finish in time comes again.
        self.ended(who);
        self.note(format_args!("c{who} has stopped: {report:?}"));
        let witness = &self.witnesses[who];
        if report.unsaved > 0
            || report.leases_lost > 0
            || witness.began.era != self.era
            || witness.forgiven
            || self.stale
        {
            return;
        }
        let done: Vec<_> = witness.succeeded.iter().map(|&at| &self.facts[at]).collect();
        let open =
            done.iter().find(|fact| fact.life == self.life && !self.is_settled(fact.id)).map(|fact| fact.id);
        if let Some(id) = open {
            self.violate(format!(
                "G15: consumer {who} has stopped and says that all is saved, and {id} is not"
            ));
        }
    }

    /// The checkpoint has it as settled, or the group has it no more.
    fn is_settled(&self, id: EntryId) -> bool {
        let settled = self.position.as_ref().is_some_and(|position| position.settles(id));
        settled || (self.setup.is_shared() && !self.pending.contains_key(&id))
    }

    /// Whether a consumer may find that the stream is another one: what it was granted may be from before the operator came.
    pub fn may_see_reset(&self, who: usize) -> bool {
        self.stale || self.witnesses[who].began.era != self.era
    }

    fn place_of(&self, delivery: &Delivery) -> Option<usize> {
        self.places.get(&(number(delivery)?, delivery.id())).copied()
    }
}

/// The number that an entry carries.
pub fn number(delivery: &Delivery) -> Option<u64> {
    delivery.fields().get("n").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
}
