//! The consumer as a pure state machine: fed with events, it answers with actions.
//!
//! No I/O, no clock, no backend: `now` is the time since the run began. The shell turns the world into events and carries the
//! actions out.

use std::time::Duration;

pub(crate) use super::events::{Action, Counts, Event, Finished, Limits};
use super::{
    ledger::{Ledger, Save},
    policy::SavePolicy,
    queue::Queue,
    tracker::Admission,
};
use crate::Delivery;

/// Acks in one save: what one script call of a server takes comfortably.
const SAVE_IDS_MAX: usize = 4_000;

#[derive(Debug)]
pub(crate) struct Machine {
    limits: Limits,
    ledger: Ledger,
    queue: Queue,
    policy: SavePolicy,
    reading: bool,
    saving: bool,
    /// How many entries the save under way carries.
    saving_len: usize,
    save_not_before: Duration,
    stopping: bool,
    drained: bool,
    /// What lanes give back may be claimed by now. Nothing starts until all of them have.
    lapsed: bool,
    /// Deliveries that are not handled, and the bytes of their fields.
    in_flight: usize,
    in_flight_bytes: usize,
    /// The greatest size of an entry in the last batch: what the next one is expected to hold.
    entry_bytes: usize,
    counts: Counts,
}

impl Machine {
    pub(crate) fn new(limits: Limits, ledger: Ledger, queue: Queue, policy: SavePolicy) -> Self {
        Self {
            limits,
            ledger,
            queue,
            policy,
            reading: false,
            saving: false,
            saving_len: 0,
            save_not_before: Duration::ZERO,
            stopping: false,
            drained: false,
            lapsed: false,
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

    /// How many deliveries may come by another way than a read.
    pub(crate) fn room(&self) -> usize {
        if self.stopping {
            return 0;
        }
        let bytes = self.limits.in_flight_bytes_max.saturating_sub(self.in_flight_bytes);
        let entries = self.limits.in_flight_entries_max.saturating_sub(self.in_flight);
        // Where nothing is in flight, an entry that is larger than the limit must come as well.
        entries.min(self.by_bytes(bytes).max(usize::from(self.in_flight == 0)))
    }

    /// How many entries of the size that is expected are so many bytes.
    fn by_bytes(&self, bytes: usize) -> usize {
        // Before the first batch nothing is known of their size: begin with few.
        bytes.checked_div(self.entry_bytes).unwrap_or(self.limits.read_entries_max.div_ceil(8))
    }

    /// Takes an event and says what to do.
    pub(crate) fn on<E>(&mut self, event: Event<E>, now: Duration, actions: &mut Vec<Action<E>>) {
        match event {
            Event::Read(deliveries) => {
                self.reading = false;
                self.admit(deliveries, now);
            }
            Event::Recovered(deliveries) => self.admit(deliveries, now),
            Event::Gone(ids) => {
                for id in ids {
                    if self.ledger.admit(id) == Admission::New {
                        self.ledger.settle(id);
                        self.policy.settled(0, now);
                    }
                }
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
            }
            Event::NotSaved(save, again) => {
                (self.saving, self.saving_len) = (false, 0);
                self.save_not_before = again;
                self.ledger.not_saved(save);
            }
            Event::Resumed(position) => self.ledger.resume(position),
            Event::Lapsed => {
                self.lapsed = self.queue.running() > 0;
                let dropped = self.queue.drain();
                self.counts.lapsed += dropped.len() as u64;
                self.let_go(&dropped);
                self.ledger.release(dropped.iter().map(Delivery::id));
            }
            Event::Tick => {}
            Event::Stop => self.stop(),
        }
        self.act(now, actions);
    }

    /// When to call again with [`Event::Tick`], if nothing else happens.
    pub(crate) fn wake(&self) -> Option<Duration> {
        // An `EveryAck` that holds the next handler back waits for its save, which wakes us.
        let save = (!self.saving && self.ledger.unsaved() > 0)
            .then(|| self.policy.due_at().max(self.save_not_before));
        let held = self.policy.every_ack() && (self.saving || self.ledger.unsaved() > 0);
        let retry = if self.stopping || self.lapsed || held { None } else { self.queue.wake() };
        [save, retry].into_iter().flatten().min()
    }

    fn stop(&mut self) {
        self.stopping = true;
        let dropped = self.queue.drain();
        self.let_go(&dropped);
        self.ledger.release(dropped.iter().map(Delivery::id));
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
            Finished::Done(id, bytes) => {
                self.ledger.settle(id);
                self.counts.settled += 1;
                self.handled(bytes);
                self.policy.settled(bytes, now);
            }
            Finished::Before(id, bytes) => {
                self.ledger.settle(id);
                self.counts.known += 1;
                self.handled(bytes);
                self.policy.settled(0, now);
            }
            Finished::Committed(id, bytes) => {
                self.ledger.committed(id);
                self.counts.settled += 1;
                self.handled(bytes);
            }
            Finished::Advanced(watermark) => self.ledger.saved(&Save::default(), Some(watermark)),
            Finished::Deferred { deliveries, again } => {
                if self.stopping || self.lapsed {
                    self.return_unstarted(deliveries);
                } else {
                    self.queue.retry(deliveries, Vec::new(), again);
                }
            }
            Finished::Broken(_) => {}
            Finished::Failed { mut deliveries, error, reject, rest } => {
                let attempts = deliveries[0].attempt;
                // While it stops, a delivery that nobody takes any more is no failure of the entry, which comes again.
                if reject || (attempts >= self.limits.attempts_max && !self.stopping) {
                    let id = deliveries[0].id();
                    self.return_unstarted(deliveries.into_iter().chain(rest).collect());
                    actions.push(Action::Exhausted { id, attempts, error });
                    self.stop();
                    return;
                }
                if self.stopping || self.lapsed {
                    self.return_unstarted(deliveries.into_iter().chain(rest).collect());
                    return;
                }
                self.counts.retried += deliveries.len() as u64;
                for delivery in &mut deliveries {
                    delivery.attempt += 1;
                }
                self.queue.retry(deliveries, rest, now + self.limits.retry.delay(attempts));
            }
            Finished::Idle { key, rest } => {
                self.queue.idle(key);
                if !rest.is_empty() {
                    self.return_unstarted(rest);
                }
                self.lapsed &= self.queue.running() > 0;
            }
        }
    }

    fn handled(&mut self, bytes: u64) {
        self.in_flight -= 1;
        self.in_flight_bytes -= usize::try_from(bytes).expect("a size in memory");
    }

    /// Takes back what a lane was given and did not start.
    fn return_unstarted(&mut self, rest: Vec<Delivery>) {
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
                while let Some((key, deliveries)) = self.queue.next(now) {
                    actions.push(Action::Start { key, deliveries });
                    if self.policy.every_ack() {
                        break;
                    }
                }
            }
            if let Some(limit) = self.demand() {
                self.reading = true;
                actions.push(Action::Read { limit });
            }
        }
        let unsaved = self.ledger.unsaved();
        if !self.saving && unsaved > 0 && now >= self.save_not_before {
            let idle = self.in_flight == 0 || self.queue.running() == 0;
            if (idle && self.policy.when_idle(now)) || self.stopping || self.policy.due(unsaved, now) {
                (self.saving, self.saving_len) = (true, unsaved);
                let save = self.ledger.save(SAVE_IDS_MAX);
                self.saving_len -= self.ledger.unsaved();
                self.policy.saving(self.ledger.unsaved(), now);
                actions.push(Action::Save(save));
            }
        }
        if self.stopping
            && !self.drained
            && self.queue.running() == 0
            && !self.saving
            && self.ledger.unsaved() == 0
        {
            self.drained = true;
            actions.push(Action::Drained);
        }
    }

    /// How many entries were read and may not be in the checkpoint.
    fn window(&self) -> usize {
        match self.ledger {
            // What is unsaved is held.
            Ledger::Shared(_) => self.ledger.len(),
            // What is settled ahead counts twice until it is saved.
            Ledger::Exclusive { .. } => self.ledger.len() + self.unsaved(),
        }
    }

    /// How many entries to read now, if any.
    fn demand(&self) -> Option<usize> {
        let limits = &self.limits;
        let window = self.window();
        if self.reading || window >= limits.window_entries_max {
            return None;
        }
        let room = (limits.in_flight_entries_max.saturating_sub(self.in_flight))
            .min(limits.window_entries_max - window);
        // Not in dribs: wait until there is room for a whole read, or for half of all.
        if room < limits.read_entries_max.min(limits.in_flight_entries_max.div_ceil(2)) {
            return None;
        }
        let bytes = limits.in_flight_bytes_max.saturating_sub(self.in_flight_bytes);
        if bytes < limits.in_flight_bytes_max / 2 {
            return None;
        }
        Some(limits.read_entries_max.min(room).min(self.by_bytes(bytes).max(1)))
    }
}
