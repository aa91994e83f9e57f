//! What an operator moves: what is repeated or skipped then, exactly.

use std::collections::BTreeSet;

use highwater::{EntryId, Epoch, Position};

use super::State;

/// What the operator is about to do with the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// What is above the new position is wanted, whatever became of it, and nothing else is.
    Reset,
    /// This entry is not wanted.
    Skip(EntryId),
}

impl State {
    /// Somebody has taken a new epoch: an operator, or a consumer by its policy.
    pub fn moved(&mut self, who: usize, epoch: Epoch, paused: Option<bool>, position: Option<&Position>) {
        if epoch <= self.epoch {
            self.violate(format!("G4: a reset gave epoch {epoch} after {}", self.epoch));
        }
        (self.epoch, self.lease) = (epoch, None);
        self.disrupted();
        if let Some(paused) = paused.filter(|paused| *paused != self.paused) {
            self.pause(paused);
        }
        match (position, self.intent) {
            (_, Intent::Skip(id)) if who == 0 => self.skipped(id),
            (Some(position), _) => self.reset(position.watermark),
            (None, _) => {}
        }
    }

    fn skipped(&mut self, id: EntryId) {
        self.note(format_args!("{id} is skipped"));
        if let Some(&at) = self.numbers.get(&id) {
            (self.facts[at].excused, self.facts[at].ever) = (true, true);
        }
    }

    /// What of the stream is there and above an id.
    pub fn above(&self, id: Option<EntryId>) -> BTreeSet<EntryId> {
        let there = self.current().filter(|fact| fact.removed.is_none()).map(|fact| fact.id);
        there.filter(|&there| Some(there) > id).collect()
    }

    /// What an operator would have to skip next: the smallest that is pending, or else that is not settled.
    pub fn next_to_settle(&self) -> Option<EntryId> {
        let position = self.position.as_ref()?;
        let pending = self.pending.keys().find(|id| !position.settles(**id)).copied();
        // What was delivered and is pending no more was acked, though the checkpoint may not know it yet.
        let acked = if self.setup.is_shared() { self.delivered } else { EntryId::ZERO };
        let is_open = |id| id > acked && !position.settles(id);
        let mut open = self.current().filter(|fact| fact.removed.is_none() && is_open(fact.id));
        pending.filter(|_| self.setup.is_shared()).or_else(|| open.next().map(|fact| fact.id))
    }

    /// Whether somebody lives on the subscription.
    pub fn anybody(&self) -> bool {
        let now = self.now();
        let owned = self.lease.as_ref().is_some_and(|(_, until)| *until > now);
        owned || self.beats().any(|(_, _, until)| until > now)
    }

    /// The resets of which a consumer knows.
    pub fn era_of(&self, who: usize) -> u32 {
        if who == 0 { self.era } else { self.witnesses[who].began.era }
    }
}
