//! The oracle at the end: set equality, count equality or a bounded number of duplicates, nothing lost in silence.

use highwater::EntryId;

use super::{State, is_wanted};
use crate::setup::IN_FLIGHT;

impl State {
    /// What is there and nobody has handled.
    pub fn wanted(&self) -> Vec<EntryId> {
        self.current().filter(|fact| is_wanted(fact)).map(|fact| fact.id).collect()
    }

    /// What is there and not settled: by the checkpoint, or also by the group.
    pub fn unsettled(&self, saved: bool) -> Vec<EntryId> {
        let in_checkpoint = |id| self.position.as_ref().is_some_and(|position| position.settles(id));
        let settled = |id| if saved { in_checkpoint(id) } else { self.is_settled(id) };
        self.current()
            .filter(|fact| fact.removed.is_none() && !settled(fact.id))
            .map(|fact| fact.id)
            .collect()
    }

    /// All is over and well: what must be true now.
    pub fn oracle(&mut self) {
        let lost = self.wanted();
        if !lost.is_empty() {
            self.violate(format!("G1: lost: {lost:?}"));
        }
        let reports = self.reports;
        let silent = self.current().find(|fact| {
            fact.handled == 0
                && fact.buried == 0
                && !fact.excused
                && matches!(fact.removed, Some((then, true)) if then == reports)
        });
        if let Some(id) = silent.map(|fact| fact.id)
            && !self.setup.is_shared()
        {
            self.violate(format!("G7: {id} left the stream unhandled, and nobody said so"));
        }
        let bound = self.counts.disruptions * (IN_FLIGHT as u64) * 2;
        if self.counts.duplicates > bound {
            let duplicates = self.counts.duplicates;
            self.violate(format!("G5: {duplicates} duplicates, more than {bound} that something explains"));
        }
    }
}
