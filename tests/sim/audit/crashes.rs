//! What processes have died of, and what the store remembers of it: G11.

use std::collections::BTreeSet;

use highwater::backend::NoteAttempts;

use super::{Attempted, State};
use crate::setup::CRASHES_MAX;

impl State {
    /// The store was told of attempts.
    pub fn noted(&mut self, who: usize, request: &NoteAttempts) {
        for attempts in &request.set {
            let (id, crashes) = (attempts.id, attempts.crashes);
            let marks = self.marks.entry(id).or_default();
            let more = (crashes as usize).saturating_sub(marks.len());
            marks.extend(std::iter::repeat_n(who, more));
            while marks.len() > crashes as usize {
                // Its own, if there is one.
                let at = marks.iter().rposition(|by| *by == who).unwrap_or(marks.len() - 1);
                marks.remove(at);
            }
            self.note(format_args!("c{who} notes {id}: {} failures, {crashes} crashes", attempts.failures));
        }
        for id in &request.clear {
            self.marks.remove(id);
        }
    }

    /// A reset forgets all of it.
    pub(super) fn forget_attempts(&mut self) {
        self.marks.clear();
        for fact in &mut self.facts {
            (fact.attempts, fact.unmarked) = (Attempted::default(), 0);
        }
    }

    /// The handler of a consumer kills its process.
    pub fn dies(&mut self, who: usize) {
        self.note(format_args!("c{who} dies"));
        self.dying.push(who);
        self.blame(who);
    }

    /// The process of a consumer is killed, and the entries that it handles may be to blame.
    pub fn killed(&mut self, who: usize) {
        self.blame(who);
        self.counts.disruptions += 1;
        self.note(format_args!("c{who} is gone"));
    }

    /// A process dies: of what the store has as started by it, as far as anybody can know, or of what it handles.
    fn blame(&mut self, who: usize) {
        let running = std::mem::take(&mut self.witnesses[who].running);
        let running: BTreeSet<_> = running.into_iter().map(|(_, _, id)| id).collect();
        let marked: BTreeSet<_> =
            self.marks.iter().filter(|(_, by)| by.contains(&who)).map(|(&id, _)| id).collect();
        // A reset forgets, and so does a new group: of what was started before, nobody is told.
        let (is_current, shared) = (self.witnesses[who].began.era == self.era, self.setup.is_shared());
        let name = self.witnesses[who].name.clone();
        for &id in running.union(&marked) {
            // It dies a moment before it is killed, and other handlers of it may begin in between.
            if !self.witnesses[who].blamed.insert(id) {
                continue;
            }
            let Some(&at) = self.numbers.get(&id) else { continue };
            let (fact, is_marked) = (&mut self.facts[at], marked.contains(&id));
            fact.in_all.crashes += u32::from(is_marked);
            if is_current {
                fact.attempts.crashes += u32::from(is_marked);
                let is_ours = self.pending.get(&id) == name.as_ref();
                let is_told = !shared || (is_ours && !self.witnesses[who].untold.contains(&id));
                fact.unmarked += u32::from(!is_marked && is_told);
            }
            let (attempts, unmarked) = (fact.attempts, fact.unmarked);
            self.note(format_args!("c{who} dies with {id}: {attempts:?}, {unmarked} that nobody knew of"));
            // What fails first may kill in its next attempt, until it has failed too often.
            if attempts.crashes > CRASHES_MAX || unmarked > 1 + attempts.failures {
                self.violate(format!(
                    "G11: processes have died of {id}: {attempts:?}, and {unmarked} times nobody knew that they might"
                ));
            }
        }
    }
}
