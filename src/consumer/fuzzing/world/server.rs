//! What the stream's server and the checkpoint's store do.

use std::{collections::BTreeSet, time::Duration};

use super::World;
use crate::{
    EntryId, Position,
    consumer::{
        ledger::{Ledger, Save},
        machine::Event,
    },
};

impl World {
    pub(in crate::consumer::fuzzing) fn append(&mut self, count: usize) {
        for _ in 0..count {
            let last = self.stream.last().map_or(0, |id| id.ms);
            self.stream.push(EntryId::new(last + 1 + (last % 3), 0));
        }
    }

    fn undelivered(&self, count: usize) -> Vec<EntryId> {
        self.stream.iter().copied().filter(|&id| id > self.cursor).take(count).collect()
    }

    /// Answers the read that was asked for, with at most so many.
    pub(in crate::consumer::fuzzing) fn answer_read(&mut self, most: usize, gap: bool) {
        if self.snapshot.is_some() {
            // The reader reads what is pending, and then what is new.
            self.redeliver();
            return;
        }
        let Some(limit) = self.reads.pop_front() else { return };
        if gap && !self.shape.shared {
            self.lose_next(2);
        }
        let new = self.undelivered(limit.min(most));
        self.cursor = new.last().copied().unwrap_or(self.cursor);
        self.pending.extend(new.iter().filter(|_| self.shape.shared));
        self.feed(Event::Read(new.into_iter().map(Self::delivery).collect()));
    }

    /// The next entries are trimmed before an owner has read them, and it goes on behind.
    fn lose_next(&mut self, count: usize) {
        let lost = self.undelivered(count);
        let Some(&last) = lost.last() else { return };
        self.gone.extend(lost);
        self.cursor = last;
        if let Ledger::Exclusive { tracker, unsaved, .. } = self.machine.ledger_mut() {
            tracker.skip(last, None);
            *unsaved += 1;
        }
    }

    /// The pending entries of this consumer are read, and then the reply comes: acks may come between.
    pub(in crate::consumer::fuzzing) fn redeliver(&mut self) {
        if !self.shape.shared || self.stopped {
            return;
        }
        let Some(snapshot) = self.snapshot.take() else {
            self.resume = false;
            // A store may have forgotten since what it knew to be settled ahead.
            self.feed(Event::Resumed(self.resumed.clone()));
            self.machine.ledger_mut().recovering(true);
            self.snapshot = Some(self.pending.clone());
            return;
        };
        let (gone, there): (Vec<_>, Vec<_>) = snapshot.into_iter().partition(|id| self.gone.contains(id));
        self.feed(Event::Gone(gone));
        if !self.stopped {
            self.feed(Event::Recovered(there.into_iter().map(Self::delivery).collect()));
            self.machine.ledger_mut().recovering(false);
        }
    }

    /// Other consumers read, and handle what they hold or die.
    pub(in crate::consumer::fuzzing) fn others_take(&mut self, count: usize, handle: bool) {
        if !self.shape.shared {
            return;
        }
        let new = self.undelivered(count);
        self.cursor = new.last().copied().unwrap_or(self.cursor);
        self.foreign.extend(new);
        if handle {
            for id in std::mem::take(&mut self.foreign) {
                if !self.shape.transactional() || !self.handled.contains_key(&id) {
                    *self.handled.entry(id).or_default() += 1;
                }
            }
        }
    }

    /// Entries of others, who are dead, are claimed.
    pub(in crate::consumer::fuzzing) fn claim(&mut self, count: usize) {
        if self.stopped {
            return;
        }
        let claimed: Vec<_> = self.foreign.iter().copied().take(count.min(self.machine.room())).collect();
        self.claimed |= !claimed.is_empty();
        self.foreign.retain(|id| !claimed.contains(id));
        self.pending.extend(&claimed);
        let (gone, there): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|id| self.gone.contains(id));
        self.feed(Event::Gone(gone));
        self.feed(Event::Recovered(there.into_iter().map(Self::delivery).collect()));
    }

    /// Our heartbeat had stopped: others may have claimed what we hold, and some did.
    pub(in crate::consumer::fuzzing) fn lapse(&mut self, count: usize) {
        if !self.shape.shared {
            return;
        }
        let claimed: BTreeSet<_> = self.pending.iter().copied().take(count).collect();
        self.pending.retain(|id| !claimed.contains(id));
        self.foreign.extend(claimed);
        (self.halted, self.resume) = (true, true);
        self.feed(Event::Lapsed);
    }

    /// An entry leaves the stream while it is pending.
    pub(in crate::consumer::fuzzing) fn gone(&mut self, nth: usize) {
        let Some(&id) = self.pending.iter().nth(nth) else { return };
        self.gone.insert(id);
        if !self.stopped {
            self.feed(Event::Gone(vec![id]));
        }
    }

    /// The group is lost, and created at the checkpoint.
    pub(in crate::consumer::fuzzing) fn group_lost(&mut self) {
        if !self.shape.shared || self.stopped {
            return;
        }
        self.group_lost = true;
        self.pending.clear();
        self.foreign.clear();
        self.snapshot = None;
        self.cursor = self.stored.watermark;
        self.resumed = self.stored.clone();
        self.halted = true;
        self.feed(Event::Lapsed);
        self.feed(Event::Resumed(self.stored.clone()));
    }

    /// The save takes effect; nobody may learn it.
    pub(in crate::consumer::fuzzing) fn save_succeeds(&mut self, learned: bool) {
        let Some(save) = self.save.take() else { return };
        self.apply(&save);
        let event = if learned {
            Event::Saved(save, Some(self.stored.watermark))
        } else {
            Event::NotSaved(save, self.now)
        };
        self.feed(event);
    }

    pub(in crate::consumer::fuzzing) fn save_fails(&mut self, wait: Duration) {
        let Some(save) = self.save.take() else { return };
        self.feed(Event::NotSaved(save, self.now + wait));
    }

    fn apply(&mut self, save: &Save) {
        let position = match &save.position {
            Some(position) => Some(position.clone()),
            None => {
                for id in &save.ids {
                    let done = self.handled.contains_key(id) || self.gone.contains(id);
                    assert!(done, "G1: {id} is acked and was not handled: {self:?}");
                }
                self.ack(&save.ids)
            }
        };
        if let Some(position) = position {
            self.advance(&position);
        }
    }

    /// Acks, and says where the group stands.
    pub(super) fn ack(&mut self, ids: &[EntryId]) -> Option<Position> {
        for id in ids {
            self.pending.remove(id);
            self.foreign.remove(id);
        }
        let pending: Vec<_> = self.pending.union(&self.foreign).copied().collect();
        Position::of_group(&pending, Some(self.cursor))
    }

    /// The rule of the stores.
    pub(super) fn advance(&mut self, position: &Position) -> bool {
        let Some(merged) = position.merged_into(&self.stored) else { return false };
        assert!(merged.watermark >= self.stored.watermark, "G3: {merged:?} after {:?}", self.stored);
        self.stored = merged;
        for id in self.stream.iter().filter(|&&id| self.stored.settles(id)) {
            let done = self.handled.contains_key(id) || self.gone.contains(id);
            assert!(done, "G2: {id} is settled and was not handled: {self:?}");
        }
        true
    }
}
