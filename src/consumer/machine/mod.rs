//! The consumer as a pure state machine: fed with events, it answers with actions.
//!
//! No I/O, no clock, no backend: `now` is the time since the run began. The shell turns the world into events and carries the
//! actions out.

mod dead;
mod demand;
mod failed;
mod suspects;

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

pub(crate) use super::events::{Action, Counts, Event, Failure, Finished, Limits, Slot};
use super::{
    book::{Book, Note},
    burials::Burials,
    ledger::{Ledger, Save},
    policy::SavePolicy,
    queue::Queue,
    tracker::Admission,
};
use crate::{Delivery, EntryId, clock::Timestamp, delivery::Care};

/// Acks in one save: what one script call of a server takes comfortably.
const SAVE_IDS_MAX: usize = 4_000;

#[derive(Debug)]
pub(crate) struct Machine {
    limits: Limits,
    ledger: Ledger,
    queue: Queue,
    policy: SavePolicy,
    book: Book,
    note_not_before: Duration,
    burials: Burials,
    /// The keys that have dead letters.
    dead_keys: HashSet<u64>,
    /// Suspects that start when the store knows of it.
    marking: Vec<(Slot, Vec<Delivery>)>,
    /// Whether one is started, or about to be, of those that come one at a time.
    alone: bool,
    /// What is delivered up to this id may have been started by an owner that died, and so many of them at most.
    unclean: Option<(EntryId, usize)>,
    /// The time of day when `now` was zero.
    began: Timestamp,
    /// How many entries each of the reads under way may bring.
    reads: VecDeque<usize>,
    saving: bool,
    /// How many entries the save under way carries.
    saving_len: usize,
    save_not_before: Duration,
    stopping: bool,
    drained: bool,
    /// What lanes give back may be claimed by now. Nothing starts until all of them have, and what they gave back is read again.
    lapsed: bool,
    /// Since the last resume, entries were let go that come again behind later ones, unless those are let go as well.
    disordered: bool,
    /// Deliveries that are not handled, and the bytes of their fields.
    in_flight: usize,
    in_flight_bytes: usize,
    /// The greatest size of an entry in the last batch: what the next one is expected to hold.
    entry_bytes: usize,
    counts: Counts,
}

impl Machine {
    pub(crate) fn new(
        limits: Limits,
        ledger: Ledger,
        queue: Queue,
        policy: SavePolicy,
        began: Timestamp,
    ) -> Self {
        Self {
            limits,
            ledger,
            queue,
            policy,
            book: Book::default(),
            note_not_before: Duration::ZERO,
            burials: Burials::default(),
            dead_keys: HashSet::new(),
            marking: Vec::new(),
            alone: false,
            unclean: None,
            began,
            reads: VecDeque::new(),
            saving: false,
            saving_len: 0,
            save_not_before: Duration::ZERO,
            stopping: false,
            drained: false,
            lapsed: false,
            disordered: false,
            in_flight: 0,
            in_flight_bytes: 0,
            entry_bytes: 0,
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// How many deliveries are not handled.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many entries are handled and not known to be in the checkpoint.
    pub(crate) fn unsaved(&self) -> usize {
        self.ledger.unsaved() + self.saving_len
    }

    /// Takes an event and says what to do.
    pub(crate) fn on<E>(&mut self, event: Event<E>, now: Duration, actions: &mut Vec<Action<E>>) {
        let mut lapsed = self.counts.lapsed;
        match event {
            Event::Read(deliveries) => {
                self.reads.pop_front();
                self.admit(deliveries, now);
            }
            Event::Recovered(deliveries) => self.admit(deliveries, now),
            Event::Gone(ids) => {
                for id in ids {
                    if self.ledger.admit(id) == Admission::New {
                        self.ledger.settle(id);
                        self.policy.settled(0, now);
                        // What is being handled ends by itself: until then, a crash would be its fault.
                        self.book.settled(id);
                    }
                }
            }
            Event::Recalled(attempts) => self.recalled(attempts),
            Event::Buried(fates) => self.buried(&fates, now),
            Event::NotBuried(again) => self.not_buried(again),
            Event::Noted => {
                self.book.noted();
                self.noted(actions);
            }
            Event::NotNoted(again) => {
                self.book.not_noted();
                self.note_not_before = again;
            }
            Event::Finished(finished) => {
                for finished in finished {
                    self.finished(finished, now, actions);
                }
            }
            Event::Saved(save, watermark) => {
                (self.saving, self.saving_len) = (false, 0);
                self.counts.saved += save.ids.len() as u64;
                self.ledger.saved(&save, watermark);
                self.book.saved();
            }
            Event::NotSaved(save, again) => {
                (self.saving, self.saving_len) = (false, 0);
                self.save_not_before = again;
                self.ledger.not_saved(save);
                self.book.not_saved();
            }
            Event::Resumed(position) => {
                self.ledger.resume(position);
                self.reorder();
                lapsed = self.counts.lapsed;
            }
            Event::Lapsed => {
                self.lapse_suspects();
                self.lapsed = true;
                self.counts.lapsed += self.drop_waiting() as u64;
            }
            Event::Tick => {}
            Event::Stop => self.stop(),
        }
        self.disordered |= self.counts.lapsed > lapsed;
        self.lapsed &= self.disordered || self.queue.running() > 0;
        self.act(now, actions);
    }

    /// When to call again with [`Event::Tick`], if nothing else happens.
    pub(crate) fn wake(&self) -> Option<Duration> {
        // An `EveryAck` that holds the next handler back waits for its save, which wakes us.
        let save = (!self.saving && self.ledger.unsaved() > 0)
            .then(|| self.policy.due_at().max(self.save_not_before));
        let held = self.policy.every_ack() && (self.saving || self.ledger.unsaved() > 0);
        let retry = if self.stopping || self.lapsed || held { None } else { self.queue.wake() };
        let burial = self.burials.wake(|id| self.may_bury(id));
        let note = self.book.is_due().then_some(self.note_not_before);
        [save, retry, burial, note].into_iter().flatten().min()
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.lapse_suspects();
        self.drop_waiting();
    }

    /// The pending entries are about to be read, from the first one on: what has come since others were let go comes again too.
    fn reorder(&mut self) {
        if std::mem::take(&mut self.disordered) && !self.stopping {
            self.counts.lapsed += self.drop_waiting() as u64;
        }
    }

    /// Forgets all that is neither started nor being written to the dead letters.
    fn drop_waiting(&mut self) -> usize {
        let mut dropped = self.queue.drain();
        for burial in self.burials.drain() {
            self.queue.unblock(burial.key);
            dropped.push(burial.delivery);
        }
        self.let_go(&dropped);
        self.ledger.release(dropped.iter().map(Delivery::id));
        dropped.len()
    }

    fn let_go(&mut self, deliveries: &[Delivery]) {
        self.in_flight -= deliveries.len();
        self.in_flight_bytes -= deliveries.iter().map(|d| d.fields().size()).sum::<usize>();
    }

    fn admit(&mut self, deliveries: Vec<Delivery>, now: Duration) {
        if !deliveries.is_empty() {
            self.entry_bytes = deliveries.iter().map(|d| d.fields().size()).max().unwrap_or_default();
        }
        for delivery in deliveries {
            if self.stopping {
                // Not settled, so it comes again.
                continue;
            }
            match self.ledger.admit(delivery.id()) {
                Admission::New => {
                    let delivery = self.prepared(delivery);
                    self.counts.delivered += 1;
                    self.in_flight += 1;
                    self.in_flight_bytes += delivery.fields().size();
                    self.queue.push(delivery);
                }
                Admission::Known => self.counts.skipped += 1,
                Admission::Settled => {
                    self.counts.skipped += 1;
                    self.policy.settled(0, now);
                }
            }
        }
    }

    fn finished<E>(&mut self, finished: Finished<E>, now: Duration, actions: &mut Vec<Action<E>>) {
        match finished {
            Finished::Done { ids, bytes } => self.done(&ids, bytes, now),
            Finished::Before(id, bytes) => {
                self.ledger.settle(id);
                self.book.settled(id);
                self.counts.known += 1;
                self.handled(1, bytes);
                self.policy.settled(0, now);
            }
            Finished::Committed(id, bytes) => {
                self.ledger.committed(id);
                self.book.committed(id);
                self.counts.settled += 1;
                self.handled(1, bytes);
            }
            Finished::Advanced(watermark) => self.ledger.saved(&Save::default(), Some(watermark)),
            Finished::Deferred { deliveries, again } => {
                deliveries.iter().for_each(|delivery| self.book.survived(delivery.id()));
                if self.stopping || self.lapsed {
                    self.return_unstarted(deliveries);
                } else {
                    self.queue.retry(deliveries, Vec::new(), again);
                }
            }
            Finished::Broken(_) => {}
            Finished::Failed { slot, deliveries, failure, rest } => {
                self.failed(slot, deliveries, failure, rest, now, actions);
            }
            Finished::Idle { slot, rest } => {
                self.queue.idle(slot.key);
                self.alone &= !slot.alone;
                if !rest.is_empty() {
                    self.return_unstarted(rest);
                }
            }
        }
    }

    fn done(&mut self, ids: &[EntryId], bytes: u64, now: Duration) {
        for &id in ids {
            self.ledger.settle(id);
            self.book.settled(id);
        }
        self.counts.settled += ids.len() as u64;
        self.handled(ids.len(), bytes);
        self.policy.settled(bytes, now);
    }

    fn handled(&mut self, entries: usize, bytes: u64) {
        self.in_flight -= entries;
        self.in_flight_bytes -= usize::try_from(bytes).expect("a size in memory");
    }

    /// Takes back what a lane was given and did not start.
    fn return_unstarted(&mut self, rest: Vec<Delivery>) {
        rest.iter().for_each(|delivery| self.book.survived(delivery.id()));
        if self.stopping || self.lapsed {
            if !self.stopping {
                self.counts.lapsed += rest.len() as u64;
            }
            self.let_go(&rest);
            self.ledger.release(rest.iter().map(Delivery::id));
        } else {
            self.queue.unshift(rest);
        }
    }

    fn act<E>(&mut self, now: Duration, actions: &mut Vec<Action<E>>) {
        if !self.stopping {
            let hold = self.policy.every_ack() && (self.saving || self.ledger.unsaved() > 0);
            if !hold && !self.lapsed {
                self.start(now, actions);
            }
            // What was to start may have been a reason to stop.
            while !self.stopping
                && let Some(limit) = self.demand()
            {
                self.reads.push_back(limit);
                actions.push(Action::Read { limit });
            }
        }
        let unsaved = self.ledger.unsaved();
        if !self.saving && unsaved > 0 && now >= self.save_not_before {
            let idle = self.in_flight == 0 || self.queue.running() == 0;
            if (idle && self.policy.when_idle(now)) || self.stopping || self.policy.due(unsaved, now) {
                (self.saving, self.saving_len) = (true, unsaved);
                let save = self.ledger.save(SAVE_IDS_MAX);
                self.book.saving();
                self.saving_len -= self.ledger.unsaved();
                self.policy.saving(self.ledger.unsaved(), now);
                actions.push(Action::Save(save));
            }
        }
        let mut waiting = std::mem::take(&mut self.burials);
        if let Some(burials) = waiting.next(now, |id| self.may_bury(id)) {
            actions.push(Action::Bury(burials));
        }
        self.burials = waiting;
        if now >= self.note_not_before
            && let Some(note) = self.book.note()
        {
            actions.push(Action::Note(note));
        }
        if self.stopping
            && !self.drained
            && self.queue.running() == 0
            && !self.saving
            && self.ledger.unsaved() == 0
            && self.burials.is_empty()
            && self.book.is_clean()
        {
            self.drained = true;
            actions.push(Action::Drained);
        }
    }

    /// Starts what may start.
    fn start<E>(&mut self, now: Duration, actions: &mut Vec<Action<E>>) {
        while !self.stopping
            && let Some((key, deliveries)) = self.queue.next(now, !self.alone)
        {
            let care = deliveries.first().map_or(Care::None, |delivery| delivery.care);
            let slot = Slot { key, alone: care == Care::Alone };
            if let Some(deliveries) = self.unless_dead(key, deliveries, now, actions) {
                self.alone |= slot.alone;
                if care.is_suspect() {
                    self.mark(slot, deliveries, actions);
                } else {
                    actions.push(Action::Start { slot, deliveries });
                }
                if self.policy.every_ack() {
                    break;
                }
            }
        }
    }
}
