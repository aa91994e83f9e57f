//! Dead letters: G11, and G10 where entries are parked.

use std::collections::BTreeSet;

use highwater::{
    DeathReason, EntryId, Fields,
    backend::{Fate, NewLetter, Redriven},
};

use super::{Filed, State, is_wanted};
use crate::setup::{CRASHES_MAX, Ordering};

/// The number and the id of the entry that a letter is of.
pub fn entry_of(fields: &Fields) -> Option<(u64, EntryId)> {
    Some((field(fields, "n")?, field(fields, "dead.id")?))
}

fn field<T: std::str::FromStr>(fields: &Fields, name: &str) -> Option<T> {
    fields.get(name).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
}

impl State {
    /// A letter was written, and its entry acked, or neither. Who sent it knew of the resets up to this era.
    pub fn buried(&mut self, who: usize, era: u32, letter: &NewLetter, fate: Fate) {
        let id = letter.id;
        self.note(format_args!("c{who} buries {id}: {fate:?}"));
        let place = entry_of(&letter.fields).and_then(|place| self.places.get(&place).copied());
        let (Fate::Buried, Some(at)) = (fate, place) else { return };
        self.pending.remove(&id);
        let reason = field(&letter.fields, "dead.reason");
        let (attempts_max, is_current) = (self.setup.attempts_max, era == self.era);
        let is_parked = reason == Some(DeathReason::Parked);
        // Who has run out of time with it is not told from who has died of it.
        let lives = |by: &&usize| **by != who && !self.witnesses[**by].blamed.contains(&id);
        let stalled = self.marks.get(&id).map_or(0, |marks| marks.iter().filter(lives).count());
        let may_park = is_parked && self.may_park(at, is_current);
        let fact = &mut self.facts[at];
        // A session that does not know of a reset yet counts what was before it.
        let attempts = if is_current { fact.attempts } else { fact.in_all };
        let earned = match reason {
            Some(DeathReason::Rejected) => attempts.rejections > 0,
            Some(DeathReason::Exhausted | DeathReason::Panicked) => attempts.failures >= attempts_max,
            Some(DeathReason::CrashLoop) => attempts.crashes as usize + stalled >= CRASHES_MAX as usize,
            // Of one that lies there already nothing more is asked.
            Some(DeathReason::Parked) => may_park || fact.letter.is_some(),
            _ => false,
        };
        let what = format!("{id} was buried as {reason:?} after {attempts:?}");
        let current = fact.life == self.life;
        fact.buried += u32::from(current);
        fact.ever |= current;
        if fact.letter.is_none() {
            let (session, nth) = (self.witnesses[who].session, self.counts.letters);
            fact.letter = Some(Filed { by: who, session, nth });
            self.counts.letters += 1;
        }
        // What became of an entry of a stream that is gone was not followed to the end.
        if !earned && current {
            self.violate(format!("{}: {what}", if is_parked { "G10" } else { "G11" }));
        }
    }

    /// Whether a letter of its key lies there, there is room, and all before it in its key are settled.
    fn may_park(&self, at: usize, is_current: bool) -> bool {
        let fact = &self.facts[at];
        let lying = || self.facts.iter().filter(|fact| fact.letter.is_some());
        let before = |other: &&super::Fact| other.key == fact.key && other.id < fact.id && is_wanted(other);
        let in_order = self.setup.is_shared() || !is_current || self.current().find(before).is_none();
        lying().any(|other| other.key == fact.key) && (lying().count() as u64) < self.setup.parks && in_order
    }

    /// A letter of this key, of which a consumer must know.
    pub(super) fn parks_behind(&self, who: usize, key: u64) -> Option<EntryId> {
        if self.setup.parks == 0 || self.setup.ordering != Ordering::Keyed {
            return None;
        }
        let witness = &self.witnesses[who];
        let is_known = |filed: &Filed| {
            filed.nth < witness.letters || (filed.by == who && filed.session == witness.session)
        };
        let letters = self.facts.iter().filter(|fact| fact.key == key);
        letters.filter(|fact| fact.letter.as_ref().is_some_and(is_known)).map(|fact| fact.id).next()
    }

    /// A letter was taken out, by whoever redrives.
    pub fn redriven(&mut self, fields: Option<&Fields>, redriven: Redriven) {
        let place = fields.and_then(entry_of).and_then(|place| self.places.get(&place).copied());
        let Some(at) = place else { return };
        let (id, key) = (self.facts[at].id, self.facts[at].key);
        self.note(format_args!("the letter of {id} is {redriven:?}"));
        if redriven == Redriven::Gone {
            return;
        }
        if self.facts[at].letter.take().is_none() {
            self.violate(format!("G11: the letter of {id} was taken out twice"));
        }
        if let (Redriven::Appended(again), Some(n)) = (redriven, fields.and_then(|fields| field(fields, "n")))
        {
            self.come(n, key, again);
        }
    }

    /// The operator handles an entry whose letter lies there.
    pub fn by_hand(&mut self, n: u64, id: EntryId) {
        self.note(format_args!("the operator handles {id}"));
        let at = self.places.get(&(n, id)).copied();
        if at.is_none_or(|at| self.facts[at].letter.is_none()) {
            self.violate(format!("G11: {id} is redriven, and no letter of it lies there"));
        }
    }

    /// What lies among the dead letters at the end.
    pub fn lie(&mut self, letters: &[(u64, EntryId)]) {
        let written = self.places.iter().filter(|(_, at)| self.facts[**at].letter.is_some());
        let written: BTreeSet<_> = written.map(|(place, _)| *place).collect();
        let lying: BTreeSet<_> = letters.iter().copied().collect();
        if lying != written || lying.len() != letters.len() {
            self.violate(format!(
                "G11: letters lie there of {letters:?}, and they were written of {written:?}"
            ));
        }
    }
}
