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
        let disruptions = u32::try_from(self.counts.disruptions).unwrap_or(u32::MAX);
        let fact = &mut self.facts[at];
        let earned = match reason {
            Some(DeathReason::Rejected) => fact.rejections > 0,
            Some(DeathReason::Exhausted | DeathReason::Panicked) => fact.failures >= attempts_max,
            // Who loses its epoch while it handles an entry counts as crashed, too: by a stall, a commit without an answer, or a
            // pause that was forced.
            Some(DeathReason::CrashLoop) => fact.crashes.max(disruptions) >= CRASHES_MAX,
            _ => false,
        };
        let what = format!(
            "{id} was buried as {reason:?} after {} failures, {} rejections and {} crashes",
            fact.failures, fact.rejections, fact.crashes
        );
        let current = fact.life == self.life;
        fact.buried += u32::from(current);
        self.counts.letters += 1;
        // What became of an entry of a stream that is gone was not followed to the end.
        if !earned && current {
            self.violate(format!("G11: {what}"));
        }
    }
}
