//! The world around a machine, as a model: a stream, a group, a durable checkpoint, and lanes that finish in any order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use proptest::{prelude::*, test_runner::TestCaseError};

use super::cases::{Case, Op, Ordering};

use crate::{
    Backoff, DeathReason, Delivery, Doom, Entry, EntryId, Fields, OnExhausted, Position,
    backend::Fate,
    clock::Timestamp,
    consumer::{
        handler::Verdict,
        ledger::{Held, Ledger, Save},
        machine::{Action, Event, Failure, Finished, Limits, Machine, Slot},
        policy::SavePolicy,
        queue::{Order, Queue},
        tracker::{Mutant, Tracker},
    },
};

const KEYS: u64 = 3;

struct Lane {
    slot: Slot,
    chunk: VecDeque<Delivery>,
}

pub(super) struct World {
    case: Case,
    mutant: Option<Mutant>,
    machine: Machine,
    now: Duration,
    pub(super) stream: Vec<EntryId>,
    /// What a handler has succeeded with, and how often.
    pub(super) handled: BTreeMap<EntryId, u32>,
    /// What handlers were called with for the first time since the last crash, in order.
    called: Vec<EntryId>,
    /// What they have succeeded with since then.
    succeeded: BTreeSet<EntryId>,
    /// Whether the group was lost since then.
    group_lost: bool,
    lanes: Vec<Lane>,
    reads: VecDeque<usize>,
    save: Option<Save>,
    cursor: EntryId,
    /// The group of a shared subscription.
    pending: BTreeSet<EntryId>,
    /// What a read of the pending list, whose reply is under way, has found.
    snapshot: Option<BTreeSet<EntryId>>,
    /// Exclusive: the watermark that the machine saved last, or began with.
    said: EntryId,
    /// The durable checkpoint.
    stored: Position,
    /// The last crash, or loss of the group, came when this was stored.
    resumed: Position,
}

fn machine(case: &Case, stored: &Position, mutant: Option<Mutant>) -> Machine {
    let ledger = if case.shared {
        Ledger::Shared(Held::new(stored.clone()))
    } else {
        let mut tracker = Tracker::new(stored.clone());
        tracker.mutant = mutant;
        Ledger::Exclusive { tracker, ahead_bytes_max: 200, unsaved: 0 }
    };
    let limits = Limits {
        read_entries_max: 8,
        in_flight_entries_max: 16,
        in_flight_bytes_max: 1 << 20,
        window_entries_max: 40,
        attempts_max: case.attempts_max,
        crashes_max: 3,
        retry_elapsed_max: None,
        on_exhausted: OnExhausted::DeadLetter,
        notes_doom: !case.shared,
        parks: false,
        retry: Backoff {
            first: Duration::from_millis(5),
            max: Duration::from_millis(5),
            ..Backoff::default()
        },
    };
    let order = match case.ordering {
        Ordering::Strict => Order::strict(),
        Ordering::Unordered => Order::Unordered { lanes: 4 },
        Ordering::Keyed => Order::Keyed { lanes: 4, key: Arc::new(|delivery| delivery.id().ms % KEYS) },
    };
    Machine::new(limits, ledger, Queue::new(order), SavePolicy::new(case.policy), Timestamp::default())
}

impl World {
    pub(super) fn new(case: Case, mutant: Option<Mutant>) -> Self {
        let stored = Position::default();
        let mut world = Self {
            machine: machine(&case, &stored, mutant),
            case,
            mutant,
            now: Duration::ZERO,
            stream: Vec::new(),
            handled: BTreeMap::new(),
            called: Vec::new(),
            succeeded: BTreeSet::new(),
            group_lost: false,
            lanes: Vec::new(),
            reads: VecDeque::new(),
            save: None,
            cursor: EntryId::ZERO,
            pending: BTreeSet::new(),
            snapshot: None,
            said: EntryId::ZERO,
            resumed: stored.clone(),
            stored,
        };
        world.feed(Event::Tick);
        world
    }

    fn feed(&mut self, event: Event<()>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            self.machine.on(event, self.now, &mut actions);
            events.extend(actions.into_iter().filter_map(|action| self.act(action)));
        }
    }

    /// Carries an action out. Notes and dead letters are answered at once.
    fn act(&mut self, action: Action<()>) -> Option<Event<()>> {
        match action {
            Action::Read { limit } => self.reads.push_back(limit),
            Action::Start { slot, deliveries } => {
                self.lanes.push(Lane { slot, chunk: deliveries.into() });
            }
            Action::Save(save) => self.save = Some(save),
            Action::Note(_) => return Some(Event::Noted),
            Action::Bury(burials) => {
                for burial in &burials {
                    let id = burial.delivery.id();
                    *self.handled.entry(id).or_default() += 1;
                    self.pending.remove(&id);
                }
                return Some(Event::Buried(vec![Some(Fate::Buried); burials.len()]));
            }
            Action::Skipped { .. } | Action::Doomed { .. } | Action::Exhausted { .. } | Action::Drained => {
                unreachable!("what is given up is dead-lettered, nobody stops")
            }
        }
        None
    }

    fn deliveries(ids: impl IntoIterator<Item = EntryId>) -> Vec<Delivery> {
        let fields = |id: EntryId| Fields::from_iter([("n", id.to_string())]);
        ids.into_iter().map(|id| Delivery::new(Entry::new(id, fields(id)), 1)).collect()
    }

    pub(super) fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Append(count) => {
                for _ in 0..count {
                    let last = self.stream.last().map_or(0, |id| id.ms);
                    self.stream.push(EntryId::new(last + 1 + (last % 3), 0));
                }
            }
            Op::Read(most) => {
                let Some(limit) = self.reads.pop_front() else { return Ok(()) };
                let cursor = self.cursor;
                let new: Vec<_> = self
                    .stream
                    .iter()
                    .copied()
                    .filter(|&id| id > cursor)
                    .take(limit.min(most.into()))
                    .collect();
                self.cursor = new.last().copied().unwrap_or(cursor);
                self.pending.extend(new.iter().filter(|_| self.case.shared));
                self.feed(Event::Read(Self::deliveries(new)));
            }
            // A read of pending entries is of an instant: acks may come between that and its reply.
            Op::Redeliver(_) if self.case.shared && self.snapshot.is_none() => {
                self.machine.ledger_mut().recovering(true);
                self.snapshot = Some(self.pending.clone());
            }
            Op::Redeliver(_) if self.case.shared => {
                let snapshot = self.snapshot.take().unwrap_or_default();
                self.feed(Event::Recovered(Self::deliveries(snapshot)));
                self.machine.ledger_mut().recovering(false);
            }
            Op::Redeliver(nth) => {
                let seen = self.stream.iter().copied().filter(|&id| id <= self.cursor);
                // A group brings again only what is pending.
                let again: Vec<_> =
                    seen.filter(|id| !self.case.shared || self.pending.contains(id)).collect();
                if let Some(&id) = again.get(usize::from(nth) % again.len().max(1)) {
                    self.feed(Event::Recovered(Self::deliveries([id])));
                }
            }
            Op::Done(nth) => self.finish(nth, true)?,
            Op::Fail(nth) => self.finish(nth, false)?,
            Op::Saved | Op::SavedReplyLost | Op::NotSaved => {
                let Some(save) = self.save.take() else { return Ok(()) };
                if !matches!(op, Op::NotSaved) {
                    self.apply(&save)?;
                }
                let event = if matches!(op, Op::Saved) {
                    Event::Saved(save, Some(self.stored.watermark))
                } else {
                    Event::NotSaved(save, self.now)
                };
                self.feed(event);
            }
            Op::Time(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.feed(Event::Tick);
            }
            Op::Crash => self.crash(),
            Op::GroupLost if self.case.shared => {
                // What was in flight is acked to no avail, so from here on an entry above the checkpoint may come twice.
                self.group_lost = true;
                self.pending.clear();
                self.cursor = self.stored.watermark;
                self.resumed = self.stored.clone();
                self.feed(Event::Resumed(self.stored.clone()));
            }
            Op::GroupLost => {}
        }
        Ok(())
    }

    fn crash(&mut self) {
        self.machine = machine(&self.case, &self.stored, self.mutant);
        (self.lanes, self.reads, self.save) = Default::default();
        self.called.clear();
        self.succeeded.clear();
        self.group_lost = false;
        self.resumed = self.stored.clone();
        self.snapshot = None;
        self.said = self.stored.watermark;
        if self.case.shared {
            // Its own pending entries first, then new ones.
            self.feed(Event::Recovered(Self::deliveries(self.pending.clone())));
        } else {
            self.cursor = self.stored.watermark;
            self.feed(Event::Tick);
        }
    }

    fn finish(&mut self, nth: u8, success: bool) -> Result<(), TestCaseError> {
        if self.lanes.is_empty() {
            return Ok(());
        }
        let nth = usize::from(nth) % self.lanes.len();
        let lane = &mut self.lanes[nth];
        let delivery = lane.chunk.pop_front().expect("a lane that is empty is gone");
        let (id, slot) = (delivery.id(), lane.slot);
        prop_assert!(!self.resumed.settles(id), "G5: {} was settled and came again", id);
        let first = !success || self.succeeded.insert(id) || self.group_lost;
        prop_assert!(first, "G5: {} was handled twice by one process", id);
        if delivery.attempt == 1 {
            self.called.push(id);
        }
        let mut finished = Vec::new();
        if success {
            *self.handled.entry(delivery.id()).or_default() += 1;
            finished.push(Finished::done([&delivery]));
        } else {
            let rest = lane.chunk.drain(..).collect();
            let failure = Failure {
                error: (),
                verdict: Verdict::Retry(None),
                index: None,
                rolled_back: false,
                doom: Doom::new(DeathReason::Exhausted, ""),
            };
            finished.push(Finished::Failed { slot, deliveries: vec![delivery], failure, rest });
        }
        if lane.chunk.is_empty() {
            let lane = self.lanes.swap_remove(nth);
            finished.push(Finished::Idle { slot: lane.slot, rest: Vec::new() });
        }
        self.feed(Event::Finished(finished));
        self.in_order()
    }

    /// A save takes effect in the stores.
    fn apply(&mut self, save: &Save) -> Result<(), TestCaseError> {
        let position = match &save.position {
            Some(position) => {
                // Held against what the machine said before, not against the store, whose rule would hide it.
                let before = self.said;
                prop_assert!(position.watermark >= before, "G3: {} after {}", position.watermark, before);
                self.said = position.watermark;
                Some(position.clone())
            }
            None => {
                for id in &save.ids {
                    prop_assert!(self.handled.contains_key(id), "G1: {} is acked and was not handled", id);
                    self.pending.remove(id);
                }
                let pending: Vec<_> = self.pending.iter().copied().collect();
                Position::of_group(&pending, Some(self.cursor))
            }
        };
        let Some(position) = position else { return Ok(()) };
        if let Some(merged) = position.merged_into(&self.stored) {
            prop_assert!(merged.watermark >= self.stored.watermark, "G3: the rule of the stores");
            self.stored = merged;
        }
        for &id in self.stream.iter().filter(|&&id| self.stored.settles(id)) {
            prop_assert!(self.handled.contains_key(&id), "G2: {} is settled and was not handled", id);
        }
        Ok(())
    }

    /// G10: a new delivery comes behind those before it, in the stream or of its key.
    fn in_order(&self) -> Result<(), TestCaseError> {
        let Some((&last, before)) = self.called.split_last() else { return Ok(()) };
        let behind =
            |same: fn(u64) -> u64| before.iter().rev().find(|id| same(id.ms) == same(last.ms)).copied();
        let previous = match self.case.ordering {
            // Entries of a shared subscription come again behind later ones.
            _ if self.case.shared => None,
            Ordering::Strict => behind(|_| 0),
            Ordering::Keyed => behind(|ms| ms % KEYS),
            Ordering::Unordered => None,
        };
        prop_assert!(previous < Some(last), "G10: {} was handled behind {:?}", last, previous);
        Ok(())
    }

    /// Lets the world go on without mishap: all must be handled and saved.
    pub(super) fn settle_down(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            let all = self.stream.last().is_none_or(|&last| self.stored.settles(last))
                && self.stream.iter().all(|&id| self.stored.settles(id));
            if all {
                return Ok(());
            }
            self.step(Op::Read(8))?;
            self.step(Op::Done(0))?;
            self.step(Op::Saved)?;
            self.step(Op::Time(10))?;
            if self.case.shared && self.machine.in_flight() == 0 && self.save.is_none() {
                // The shell completes the checkpoint of a group that is ahead of it.
                self.apply(&Save::default())?;
            }
        }
        let missing: Vec<_> = self.stream.iter().filter(|&&id| !self.stored.settles(id)).collect();
        Err(TestCaseError::fail(format!("G1: a stall, with these not settled: {missing:?}")))
    }
}
