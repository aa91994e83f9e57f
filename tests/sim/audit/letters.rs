//! Dead letters: G11.

use highwater::{
    DeathReason,
    backend::{Fate, NewLetter},
};

use super::State;
use crate::setup::CRASHES_MAX;

impl State {
    /// A letter was written, and its entry acked, or neither.
    pub fn buried(&mut self, who: usize, letter: &NewLetter, fate: Fate) {
        let id = letter.id;
        self.note(format_args!("c{who} buries {id}: {fate:?}"));
        let number = letter.fields.get("n").and_then(|n| std::str::from_utf8(n).ok()?.parse::<u64>().ok());
        let place = number.and_then(|n| self.places.get(&n).copied());
        let (Fate::Buried, Some(at)) = (fate, place) else { return };
        self.pending.remove(&id);
        let reason = letter
            .fields
            .get("dead.reason")
            .and_then(|reason| std::str::from_utf8(reason).ok()?.parse().ok());
        let attempts_max = self.setup.attempts_max;
        // A session that does not know of a reset yet counts what was before it.
        let is_current = self.witnesses[who].era == self.era;
        let fact = &mut self.facts[at];
        let attempts = if is_current { fact.attempts } else { fact.in_all };
        let earned = match reason {
            Some(DeathReason::Rejected) => attempts.rejections > 0,
            Some(DeathReason::Exhausted | DeathReason::Panicked) => attempts.failures >= attempts_max,
            Some(DeathReason::CrashLoop) => attempts.crashes >= CRASHES_MAX,
            _ => false,
        };
        let what = format!("{id} was buried as {reason:?} after {attempts:?}");
        let current = fact.life == self.life;
        fact.buried += u32::from(current);
        self.counts.letters += 1;
        // What became of an entry of a stream that is gone was not followed to the end.
        if !earned && current {
            self.violate(format!("G11: {what}"));
        }
    }
}
