//! Calls of handlers, and what they lead to: G1, G5, G9, G10, G17.

use std::time::Duration;

use highwater::{ConsumerName, Delivery, EntryId, Observation};

use super::{Audit, State, is_wanted, number};
use crate::setup::{IN_FLIGHT, LANES, Ordering};

/// What a handler is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub takes: Duration,
    pub ends: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Well,
    Failing,
    Panicking,
    /// It will never be handled.
    Rejecting,
    /// The process dies.
    Dying,
}

/// A handler that runs. Dropped with it.
#[derive(Debug)]
pub struct Running {
    audit: Audit,
    who: usize,
    era: u32,
    session: u32,
    ids: Vec<EntryId>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (session, ids) = (self.session, &self.ids);
        let mut state = self.audit.lock();
        state.witnesses[self.who].running.retain(|(of, _, id)| *of != session || !ids.contains(id));
    }
}

impl Audit {
    /// A handler is called with these.
    pub fn called(&self, who: usize, name: &ConsumerName, deliveries: &[Delivery]) -> (Running, Part) {
        let mut state = self.lock();
        let (era, session) = (state.era_of(who), state.witnesses[who].session);
        let ids: Vec<_> = deliveries.iter().map(Delivery::id).collect();
        for delivery in deliveries {
            state.called(who, name, delivery, &ids);
        }
        state.counts.calls += 1;
        let mut part = state.part();
        if deliveries.iter().filter_map(number).any(|n| state.setup.is_poison(n)) {
            part.ends = Ends::Dying;
        }
        (Running { audit: self.clone(), who, era, session, ids }, part)
    }
}

impl State {
    fn called(&mut self, who: usize, name: &ConsumerName, delivery: &Delivery, batch: &[EntryId]) {
        let id = delivery.id();
        self.note(format_args!("c{who} handles {id}, attempt {}", delivery.attempt));
        let Some(at) = self.place_of(delivery) else {
            self.violate(format!("G1: {id} was delivered with {:?}", delivery.fields()));
            return;
        };
        let (life, key) = (self.facts[at].life, self.facts[at].key);
        let session = self.witnesses[who].session;
        let lane = match self.setup.ordering {
            Ordering::Strict => 0,
            Ordering::Keyed => key,
            Ordering::Unordered => id.ms,
        };
        let in_batch = |running: &EntryId| batch.contains(running);
        let ours = self.witnesses[who].running.iter().filter(|(of, _, id)| *of == session && !in_batch(id));
        let (at_once, same) = ours.fold((0, None), |(count, same), (_, other, id)| {
            (count + 1, if *other == lane { Some(*id) } else { same })
        });
        if let Some(other) = same.filter(|_| self.setup.ordering != Ordering::Unordered) {
            self.violate(format!("G10: consumer {who} handles {id} beside {other}"));
        }
        if at_once >= LANES {
            self.violate(format!("G17: consumer {who} handles more than {LANES} entries at once"));
        }
        self.witnesses[who].running.push((session, lane, id));
        self.witnesses[who].untold.remove(&id);
        if life != self.life || self.witnesses[who].began.era != self.era || self.stale {
            return;
        }
        let witness = &self.witnesses[who];
        if self.paused && witness.began.paused == Some(self.pauses) {
            self.violate(format!("consumer {who} handles {id} of a subscription that is paused"));
        } else if witness.began.promised.contains(&id) && self.promised.contains(&id) {
            self.violate(format!("G5: {id} was settled before consumer {who} began"));
        } else if witness.succeeded.contains(&at) && !witness.forgiven {
            self.violate(format!("G5: {id} comes to consumer {who} again, which has handled it"));
        } else if let Some(letter) = self.parks_behind(who, key) {
            self.violate(format!(
                "G10: consumer {who} handles {id}, and the letter of {letter} lies before it"
            ));
        } else {
            self.in_order(who, name, id, key, batch);
        }
    }

    /// G10: all before it, in the stream or of its key, were handled. In a shared subscription: all that this consumer holds
    /// and has failed with.
    fn in_order(&mut self, who: usize, name: &ConsumerName, id: EntryId, key: u64, batch: &[EntryId]) {
        let (shared, ordering) = (self.setup.is_shared(), self.setup.ordering);
        if ordering == Ordering::Unordered {
            return;
        }
        let failed = &self.witnesses[who].failed;
        let held = |id: &EntryId| failed.contains(id) && self.pending.get(id) == Some(name);
        let before = self.current().find(|fact| {
            fact.id < id
                && (ordering == Ordering::Strict || fact.key == key)
                && is_wanted(fact)
                && !batch.contains(&fact.id)
                && (!shared || held(&fact.id))
        });
        if let Some(first) = before.map(|fact| fact.id) {
            self.violate(format!("G10: consumer {who} handles {id} before {first}"));
        }
    }

    fn part(&mut self) -> Part {
        let takes = match self.random.u8(..100) {
            0..60 => 0,
            60..90 => self.random.u64(1..10),
            90..98 => self.random.u64(10..60),
            _ => 400,
        };
        let ends = match self.random.f64() {
            f if f >= self.setup.failures => Ends::Well,
            _ => match self.random.u8(..8) {
                0 => Ends::Panicking,
                1 => Ends::Rejecting,
                _ => Ends::Failing,
            },
        };
        Part { takes: Duration::from_millis(takes), ends }
    }

    /// What an observer of a consumer has seen.
    pub fn observed(&mut self, who: usize, observation: &Observation<'_>) {
        match observation {
            Observation::Lapsed | Observation::Lost(_) => {
                self.counts.disruptions += 1;
                self.in_doubt(who);
                self.note(format_args!("c{who} lost what it held"));
            }
            Observation::Gap(gap) => {
                self.reports += 1;
                self.note(format_args!("c{who} reports a gap of {}", gap.lost));
                self.expect_gap(gap.lost.count());
            }
            Observation::Reset(reset) => {
                self.reports += 1;
                self.note(format_args!("c{who} reports a reset: {}", reset.reason));
            }
            // A claim that comes beside a read may go over the limit.
            Observation::Status(status) if status.in_flight > 2 * IN_FLIGHT => {
                self.violate(format!("G17: consumer {who} holds {} deliveries", status.in_flight));
            }
            _ => {}
        }
    }

    pub fn expect_gap(&mut self, count: u64) {
        let trimmed = self.facts.iter().any(|fact| fact.removed.is_some());
        let expected = self.may_gap || (trimmed && count == 0);
        if !expected {
            self.violate(format!("G7: a gap of {count} was reported, and nothing is missing"));
        }
    }

    /// A committed transaction has this effect.
    pub fn row(&mut self, who: usize, n: u64, id: EntryId) {
        let fact = &mut self.facts[self.places[&(n, id)]];
        fact.handled += u32::from(fact.life == self.life);
        fact.ever = true;
        let (id, times) = (fact.id, fact.handled);
        self.counts.handled += 1;
        self.note(format_args!("c{who} has a row for {id}"));
        if times > 1 {
            self.violate(format!("G9: {id} took effect {times} times"));
        }
    }
}

impl Running {
    /// The handler is about to succeed.
    pub fn succeeds(&self) {
        let mut state = self.audit.lock();
        for id in &self.ids {
            state.note(format_args!("c{} has handled {id}", self.who));
            let Some(&at) = state.numbers.get(id) else { continue };
            state.facts[at].ever = true;
            if self.era != state.era {
                continue;
            }
            state.witnesses[self.who].succeeded.insert(at);
            state.facts[at].handled += 1;
            state.counts.handled += 1;
            state.counts.duplicates += u64::from(state.facts[at].handled > 1);
        }
    }

    /// The handler is about to fail.
    pub fn fails(&self, rejects: bool) {
        let mut state = self.audit.lock();
        let era = state.era;
        for id in &self.ids {
            if let Some(&at) = state.numbers.get(id) {
                let (fact, is_current) = (&mut state.facts[at], self.era == era);
                for attempts in [&mut fact.in_all].into_iter().chain(is_current.then_some(&mut fact.attempts))
                {
                    attempts.failures += 1;
                    attempts.rejections += u32::from(rejects);
                }
            }
            state.note(format_args!("c{} fails with {id}", self.who));
            // What it may have lost since it was given comes again, perhaps behind what it is given then.
            let witness = &mut state.witnesses[self.who];
            if *id > witness.in_doubt {
                witness.failed.insert(*id);
            }
        }
    }
}
