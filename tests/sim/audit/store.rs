//! The checkpoint, its epoch and its lease: G2, G3, G4, G13.

use std::{collections::BTreeSet, time::Duration};

use highwater::{
    Checkpoint, ConsumerName, EntryId, Epoch, Position,
    backend::{Acquired, Advance},
};

use super::{Seen, State, is_wanted};

impl State {
    /// Looks at the checkpoint as it is.
    pub fn look(&mut self, checkpoint: Option<&Checkpoint>) {
        let Some(checkpoint) = checkpoint else {
            if let Some(position) = &self.position {
                self.violate(format!("G3: the checkpoint is gone; it was {position:?}"));
            }
            return;
        };
        let (epoch, position) = (checkpoint.epoch, &checkpoint.position);
        if epoch < self.epoch {
            self.violate(format!("G4: the epoch fell from {} to {epoch}", self.epoch));
        }
        if let Some(before) = self.position.as_ref().map(|before| before.watermark)
            && position.watermark < before
        {
            self.violate(format!("G3: the watermark fell from {before} to {}", position.watermark));
        }
        if self.position.as_ref() != Some(position) {
            self.note(format_args!("checkpoint {epoch} {} {:?}", position.watermark, position.ahead));
        }
        (self.epoch, self.position) = (epoch.max(self.epoch), Some(position.clone()));
        if self.stale {
            return;
        }
        self.forgotten(position);
        let skipped =
            self.current().find(|fact| position.settles(fact.id) && is_wanted(fact)).map(|fact| fact.id);
        if let Some(id) = skipped {
            self.violate(format!("G2: {id} is settled and was not handled: {position:?}"));
        }
    }

    /// What an owner has settled ahead stays so, but where an advance comes late that knew less. In a shared subscription the group
    /// is the truth, and one that was created anew delivers it once more; and advances of several overtake each other.
    fn forgotten(&mut self, position: &Position) {
        let lost = self.promised.iter().copied().filter(|&id| !position.settles(id));
        for id in lost.collect::<Vec<_>>() {
            self.promised.remove(&id);
            if !self.setup.is_shared() && !self.late {
                self.violate(format!("G5: {id} was settled, and is so no more: {position:?}"));
            }
        }
    }

    /// A write of this epoch took effect.
    pub fn wrote(&mut self, who: usize, what: &str, epoch: Epoch) {
        if epoch < self.epoch {
            self.violate(format!("G4: consumer {who} of epoch {epoch} {what}, and {} is issued", self.epoch));
        }
    }

    /// An advance took effect: what it says is settled stays so.
    pub fn advanced(&mut self, who: usize, request: &Advance) {
        self.wrote(who, "advanced", request.epoch);
        let is_behind = |stored: &Position| stored.watermark > request.position.watermark;
        if self.position.as_ref().is_some_and(is_behind) {
            // It changes nothing.
            return;
        }
        self.promise(&request.position);
    }

    /// All of this is in the checkpoint, or should be.
    pub fn promise(&mut self, position: &Position) {
        if !self.stale {
            let settled: Vec<_> =
                self.current().map(|fact| fact.id).filter(|&id| position.settles(id)).collect();
            self.promised.extend(settled);
        }
    }

    pub fn fenced(&mut self) {
        self.counts.fenced += 1;
    }

    pub fn acquired(&mut self, who: usize, owner: &ConsumerName, ttl: Duration, acquired: &Acquired) {
        let Acquired::Owned(grant) = acquired else { return };
        let now = self.now();
        if let Some((holder, until)) =
            self.lease.as_ref().filter(|(holder, until)| *until > now && holder != owner)
        {
            let left = until.saturating_sub(now);
            self.violate(format!("G13: {owner} has taken the lease of {holder}, which stands for {left:?}"));
        }
        if grant.epoch <= self.epoch && grant.epoch != Epoch(1) {
            self.violate(format!("G4: epoch {} was issued after {}", grant.epoch, self.epoch));
        }
        self.epoch = grant.epoch;
        self.lease = Some((owner.clone(), now + ttl));
        self.begins(who, self.seen());
        self.note(format_args!("c{who} owns epoch {}", grant.epoch));
    }

    pub fn renewed(&mut self, who: usize, epoch: Epoch, ttl: Duration) {
        self.wrote(who, "renewed", epoch);
        let until = self.now() + ttl;
        if let Some(lease) = &mut self.lease {
            lease.1 = until;
        }
    }

    pub fn released(&mut self, who: usize, epoch: Epoch) {
        self.wrote(who, "released", epoch);
        self.lease = None;
    }

    /// Shared: a consumer learns the checkpoint. A session begins with what was learned last.
    pub fn loaded(&mut self, who: usize) {
        if who != 0 && self.setup.is_shared() {
            self.witnesses[who].seen = self.seen();
        }
    }

    /// Shared: a consumer begins a session.
    pub fn enters(&mut self, who: usize) {
        if who != 0 && self.setup.is_shared() {
            let seen = self.witnesses[who].seen.clone();
            self.begins(who, seen);
        }
    }

    fn seen(&self) -> Seen {
        let promised = if self.stale { BTreeSet::new() } else { self.promised.clone() };
        Seen { era: self.era, paused: self.paused.then_some(self.pauses), promised }
    }

    /// A consumer begins at the checkpoint as it has seen it.
    fn begins(&mut self, who: usize, seen: Seen) {
        let letters = self.counts.letters;
        let witness = &mut self.witnesses[who];
        (witness.session, witness.letters) = (witness.session + 1, letters);
        witness.began = seen;
        witness.succeeded.clear();
        witness.failed.clear();
        witness.forgiven = false;
    }

    /// An operator has paused the subscription, or lets it go on.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.pauses += u32::from(paused);
        self.note(format_args!("paused: {paused}"));
    }

    /// The checkpoint was set to this id, by an operator or by policy.
    pub(super) fn reset(&mut self, to: EntryId) {
        self.era += 1;
        (self.position, self.stale) = (None, false);
        self.forget_attempts();
        self.promised.retain(|&id| id <= to);
        for &n in self.numbers.values() {
            let fact = &mut self.facts[n];
            // An operator asks for what is there.
            if let Some((_, is_missing)) = &mut fact.removed {
                *is_missing = false;
            }
            if fact.id > to {
                (fact.handled, fact.buried, fact.excused) = (0, 0, false);
                // It was handled once, and is wanted again.
                self.may_gap |= fact.removed.is_some();
            } else {
                (fact.excused, fact.ever) = (true, true);
            }
        }
        self.note(format_args!("reset to {to}"));
    }
}
