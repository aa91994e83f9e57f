//! Entries on their way to the dead letters.

use std::time::Duration;

use super::{Action, Machine};
use crate::{
    DeathReason, Delivery, Doom, EntryId,
    backend::Fate,
    consumer::{OnExhausted, burials::Burial},
};

/// How long an entry waits for room among those that are parked, before it asks again.
const FULL_WAIT: Duration = Duration::from_secs(1);

impl Machine {
    /// Gives back what may be started. An entry that was given up before, that processes die of, or whose key has dead letters
    /// may not.
    pub(super) fn unless_dead<E>(
        &mut self,
        key: Option<u64>,
        mut deliveries: Vec<Delivery>,
        now: Duration,
        actions: &mut Vec<Action<E>>,
    ) -> Option<Vec<Delivery>> {
        let doom = match &deliveries[..] {
            [delivery] => self.doom_of(key, delivery),
            // Who is doomed comes alone, and parks only one by one.
            _ => None,
        };
        let Some((doom, delivery)) = doom.and_then(|doom| Some((doom, deliveries.pop()?))) else {
            return Some(deliveries);
        };
        match self.limits.on_exhausted {
            OnExhausted::Stop => {
                let id = delivery.id();
                self.queue.idle(key);
                self.return_unstarted(vec![delivery]);
                actions.push(Action::Doomed { id, doom });
                self.stop();
            }
            OnExhausted::Skip => {
                self.queue.idle(key);
                self.doom(key, delivery, doom, now, actions);
            }
            OnExhausted::DeadLetter => {
                self.queue.withhold(key);
                self.doom(key, delivery, doom, now, actions);
            }
        }
        None
    }

    fn doom_of(&self, key: Option<u64>, delivery: &Delivery) -> Option<Doom> {
        let attempts = self.book.of(delivery.id());
        if let Some(doom) = attempts.doom {
            return Some(doom);
        }
        if attempts.crashes >= self.limits.crashes_max {
            let error = format!("{} processes died while they handled it", attempts.crashes);
            return Some(Doom::new(DeathReason::CrashLoop, error));
        }
        let parks = self.limits.parks && key.is_some_and(|key| self.dead_keys.contains(&key));
        parks.then(|| Doom::new(DeathReason::Parked, "an entry of its key was dead-lettered before it"))
    }

    /// Where the letter is not one step with what settles the entry, nobody else may handle it once the letter is under way.
    pub(super) fn may_bury(&self, id: EntryId) -> bool {
        !self.limits.notes_doom || self.book.is_noted([id].into_iter())
    }

    pub(super) fn buried(&mut self, fates: &[Option<Fate>], now: Duration) {
        let mut again = Vec::new();
        let mut ended = self.burials.end();
        // A sink may have taken the first ones only.
        let rest = ended.split_off(fates.len().min(ended.len()));
        for (burial, fate) in ended.into_iter().zip(fates) {
            let (id, key) = (burial.delivery.id(), burial.key);
            match fate {
                None => {
                    self.counts.known += 1;
                    self.bury_done(id, &burial.delivery, now);
                    self.queue.unblock(key);
                }
                Some(Fate::Buried) => {
                    self.counts.dead_lettered += 1;
                    if !self.limits.notes_doom {
                        // The letter was one step with the ack.
                        self.ledger.buried(id);
                    }
                    self.bury_done(id, &burial.delivery, now);
                    if self.limits.parks {
                        self.dead_keys.extend(key);
                    }
                    self.queue.unblock(key);
                }
                Some(Fate::NotHeld) => {
                    self.counts.refused += 1;
                    self.forget_burial(&burial.delivery, key);
                }
                Some(Fate::Full | Fate::Unparked) if self.stopping || self.lapsed => {
                    self.counts.lapsed += u64::from(!self.stopping);
                    self.forget_burial(&burial.delivery, key);
                }
                Some(Fate::Full) => again.push(burial),
                Some(Fate::Unparked) => {
                    key.map(|key| self.dead_keys.remove(&key));
                    self.queue.restart(key, burial.delivery);
                }
            }
        }
        self.burials.again(again, now + FULL_WAIT);
        if self.stopping || self.lapsed {
            self.drop_burials(rest);
        } else {
            self.burials.again(rest, now);
        }
    }

    fn bury_done(&mut self, id: EntryId, delivery: &Delivery, now: Duration) {
        self.ledger.settle(id);
        self.book.settled(id);
        self.handled(1, delivery.fields().size() as u64);
        self.policy.settled(0, now);
    }

    pub(super) fn not_buried(&mut self, again: Duration) {
        let burials = self.burials.end();
        if !self.stopping && !self.lapsed {
            self.burials.again(burials, again);
            return;
        }
        self.drop_burials(burials);
    }

    fn drop_burials(&mut self, burials: Vec<Burial>) {
        for burial in burials {
            self.counts.lapsed += u64::from(!self.stopping);
            self.forget_burial(&burial.delivery, burial.key);
        }
    }

    fn forget_burial(&mut self, delivery: &Delivery, key: Option<u64>) {
        self.let_go(std::slice::from_ref(delivery));
        self.ledger.release([delivery.id()].into_iter());
        self.queue.unblock(key);
    }
}
