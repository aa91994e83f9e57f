//! What this consumer knows of attempts in vain, and what of it the store has not been told yet.
//!
//! Entries that are handled at the first attempt, which are nearly all, leave no trace here.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Attempts, Doom, EntryId, clock::Timestamp};

/// The most records in one note.
const NOTE_MAX: usize = 1_000;

/// What to tell the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Note {
    pub(crate) set: Vec<Attempts>,
    pub(crate) clear: Vec<EntryId>,
}

/// The attempts at entries, as they are to be remembered.
#[derive(Debug, Default)]
pub(crate) struct Book {
    known: BTreeMap<EntryId, Attempts>,
    /// Of these the store has not been told what is known, or that it is to be forgotten.
    dirty: BTreeSet<EntryId>,
    /// What the note under way is about.
    noting: BTreeSet<EntryId>,
    /// Counted as if the process died of them, until they end otherwise.
    marked: BTreeSet<EntryId>,
    /// Settled, and to be forgotten when that is durable.
    settled: BTreeSet<EntryId>,
    /// The same, while the save that makes it durable is under way.
    saving: BTreeSet<EntryId>,
}

impl Book {
    /// What the store remembers. What is known here is newer.
    pub(crate) fn learn(&mut self, attempts: Vec<Attempts>) {
        for attempts in attempts {
            let (id, told) = (attempts.id, !self.dirty.contains(&attempts.id));
            if told && !self.noting.contains(&id) && !self.marked.contains(&id) {
                self.known.insert(id, attempts);
            }
        }
    }

    /// What is known of attempts at an entry.
    pub(crate) fn of(&self, id: EntryId) -> Attempts {
        self.known.get(&id).cloned().unwrap_or_else(|| Attempts::new(id))
    }

    /// The process may die of these, which are about to start.
    pub(crate) fn mark(&mut self, ids: impl Iterator<Item = EntryId>) {
        for id in ids {
            if self.marked.insert(id) {
                self.known.entry(id).or_insert_with(|| Attempts::new(id)).crashes += 1;
                self.dirty.insert(id);
            }
        }
    }

    /// The process did not die of it.
    pub(crate) fn survived(&mut self, id: EntryId) {
        if self.marked.remove(&id)
            && let Some(attempts) = self.known.get_mut(&id)
        {
            attempts.crashes = attempts.crashes.saturating_sub(1);
            self.dirty.insert(id);
        }
    }

    /// What is marked, as far as the store knows.
    pub(crate) fn marked(&self) -> Vec<EntryId> {
        self.marked.iter().copied().filter(|&id| self.is_noted([id].into_iter())).collect()
    }

    /// This process marked these before, and lives.
    pub(crate) fn outlived(&mut self, ids: Vec<EntryId>) {
        for id in ids {
            if self.known.contains_key(&id) && self.marked.insert(id) {
                self.survived(id);
            }
        }
    }

    /// A handler has failed with it, so often in all.
    pub(crate) fn failed(&mut self, id: EntryId, failures: u32, at: Timestamp) -> &Attempts {
        self.survived(id);
        let attempts = self.known.entry(id).or_insert_with(|| Attempts::new(id));
        attempts.failures = attempts.failures.max(failures);
        attempts.first_at.get_or_insert(at);
        self.dirty.insert(id);
        attempts
    }

    /// It was given up: nobody may handle it any more.
    pub(crate) fn doomed(&mut self, id: EntryId, doom: &Doom) {
        let attempts = self.known.entry(id).or_insert_with(|| Attempts::new(id));
        if attempts.doom.is_none() {
            attempts.doom = Some(doom.clone());
            self.dirty.insert(id);
        }
    }

    /// It is settled: to be forgotten when that is durable.
    pub(crate) fn settled(&mut self, id: EntryId) {
        self.survived(id);
        if self.known.contains_key(&id) {
            self.settled.insert(id);
        }
    }

    /// A save begins, of all that is settled.
    pub(crate) fn saving(&mut self) {
        self.saving.append(&mut self.settled);
    }

    /// What was settled when the save began is durably so.
    pub(crate) fn saved(&mut self) {
        for id in std::mem::take(&mut self.saving) {
            self.forget(id);
        }
    }

    pub(crate) fn not_saved(&mut self) {
        self.settled.append(&mut self.saving);
    }

    /// It is durably settled.
    pub(crate) fn committed(&mut self, id: EntryId) {
        self.survived(id);
        self.forget(id);
    }

    fn forget(&mut self, id: EntryId) {
        if self.known.remove(&id).is_some() {
            self.dirty.insert(id);
        }
    }

    /// Whether the store knows all that is known of these.
    pub(crate) fn is_noted(&self, mut ids: impl Iterator<Item = EntryId>) -> bool {
        ids.all(|id| !self.dirty.contains(&id) && !self.noting.contains(&id))
    }

    /// Whether there is nothing left to tell.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.noting.is_empty()
    }

    /// Whether there is something to tell, and nothing under way.
    pub(crate) fn is_due(&self) -> bool {
        self.noting.is_empty() && !self.dirty.is_empty()
    }

    /// What to tell the store now, if nothing is under way.
    pub(crate) fn note(&mut self) -> Option<Note> {
        if !self.is_due() {
            return None;
        }
        self.noting = match self.dirty.iter().nth(NOTE_MAX).copied() {
            Some(rest) => {
                let rest = self.dirty.split_off(&rest);
                std::mem::replace(&mut self.dirty, rest)
            }
            None => std::mem::take(&mut self.dirty),
        };
        let mut note = Note::default();
        for &id in &self.noting {
            match self.known.get(&id).filter(|attempts| !attempts.is_empty()) {
                Some(attempts) => note.set.push(attempts.clone()),
                None => note.clear.push(id),
            }
        }
        Some(note)
    }

    /// The store knows what it was told.
    pub(crate) fn noted(&mut self) {
        self.noting.clear();
        self.known.retain(|id, attempts| !attempts.is_empty() || self.dirty.contains(id));
    }

    pub(crate) fn not_noted(&mut self) {
        self.dirty.append(&mut self.noting);
    }

    /// The last word of a process that ends in order: it did not die of what it leaves behind.
    pub(crate) fn farewell(&mut self) -> Option<Note> {
        self.not_noted();
        for id in std::mem::take(&mut self.marked) {
            self.marked.insert(id);
            self.survived(id);
        }
        self.note()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> EntryId {
        EntryId::new(n, 0)
    }

    #[test]
    fn g11_a_mark_counts_until_the_entry_ends_otherwise() {
        let mut book = Book::default();
        book.mark([id(1), id(2), id(3)].into_iter());
        let note = book.note().unwrap();
        assert!(note.set.iter().all(|attempts| attempts.crashes == 1), "{note:?}");
        assert!(!book.is_noted([id(1)].into_iter()));
        book.noted();
        assert!(book.is_noted([id(1), id(2), id(3)].into_iter()));
        book.failed(id(1), 1, Timestamp::from_millis(5));
        book.settled(id(2));
        let note = book.note().unwrap();
        assert_eq!((note.set[0].id, note.set[0].failures, note.set[0].crashes), (id(1), 1, 0));
        assert_eq!(note.clear, [id(2)], "nothing is left to remember of it");
        book.noted();
        let note = book.farewell().unwrap();
        assert_eq!((note.set, note.clear), (vec![], vec![id(3)]));
    }

    #[test]
    fn g11_a_failure_is_forgotten_only_when_the_entry_is_durably_settled() {
        let mut book = Book::default();
        book.failed(id(1), 2, Timestamp::from_millis(5));
        book.note().unwrap();
        book.noted();
        book.settled(id(1));
        assert!(book.is_clean());
        book.saving();
        book.not_saved();
        assert!(book.is_clean());
        book.saving();
        book.saved();
        assert_eq!(book.note().unwrap().clear, [id(1)]);
    }

    #[test]
    fn a_note_that_failed_is_made_again_with_what_is_known_by_then() {
        let mut book = Book::default();
        book.failed(id(1), 1, Timestamp::from_millis(5));
        book.note().unwrap();
        assert_eq!(book.note(), None, "one at a time");
        book.failed(id(1), 2, Timestamp::from_millis(9));
        book.not_noted();
        let note = book.note().unwrap();
        assert_eq!((note.set[0].failures, note.set[0].first_at), (2, Some(Timestamp::from_millis(5))));
        // What the store says is older than what is known.
        book.learn(vec![Attempts::new(id(1))]);
        assert_eq!(book.of(id(1)).failures, 2);
    }
}
