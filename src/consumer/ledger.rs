//! What a consumer holds and what it has yet to save, for both ways to own a subscription.

use std::collections::{HashSet, hash_map};

use super::{
    ids::IdMap,
    tracker::{Admission, Tracker},
};
use crate::{Delivery, EntryId, Position};

/// What one save carries to the stores.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Save {
    /// Shared: what to ack. The server then says how far the group is settled.
    pub(crate) ids: Vec<EntryId>,
    /// Shared: how many of them were acked together with their dead letters, about.
    pub(crate) letters: usize,
    /// Exclusive: how far the subscription is settled.
    pub(crate) position: Option<Position>,
    /// Shared: what the checkpoint has as settled besides.
    pub(crate) known: Option<Box<Position>>,
    /// Exclusive: how many entries were settled since the save before.
    pub(crate) settled: usize,
}

/// What is held and what is unsaved.
#[derive(Debug)]
pub(crate) enum Ledger {
    Shared(Held),
    Exclusive { tracker: Tracker, ahead_bytes_max: usize, unsaved: usize },
}

/// The deliveries of a shared subscription that this process holds. They come in any order.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// What the checkpoint said at the last resume.
    position: Position,
    /// All that is held. Kept until its acks are known, so that a redelivery is recognised.
    entries: IdMap<Owed>,
    /// Handled, not acked yet.
    unsaved: Vec<EntryId>,
    /// How many of those were acked together with their dead letters. They are acked again, so that the checkpoint follows.
    letters: usize,
    /// While this consumer's pending entries are read again: what was acked meanwhile. Such a read is of an instant that may
    /// be before the ack.
    acked: Option<HashSet<EntryId>>,
}

/// What is owed for an entry that is held.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Owed {
    /// It is to be handled.
    Handling,
    /// The same, and it came again meanwhile, perhaps by another group.
    HandlingAgain,
    /// An ack.
    Ack,
    /// Two: it came again while one was under way.
    Acks,
}

impl Held {
    pub(crate) fn new(position: Position) -> Self {
        // A consumer begins with its pending entries.
        Self { position, acked: Some(HashSet::new()), ..Self::default() }
    }
}

impl Ledger {
    /// Takes a delivery.
    pub(crate) fn admit(&mut self, id: EntryId) -> Admission {
        match self {
            Self::Exclusive { tracker, unsaved, .. } => {
                let admission = tracker.admit(id);
                *unsaved += usize::from(admission == Admission::Settled);
                admission
            }
            Self::Shared(held) => match held.entries.entry(id) {
                hash_map::Entry::Occupied(mut slot) => {
                    match slot.get_mut() {
                        owed @ Owed::Handling => *owed = Owed::HandlingAgain,
                        // The ack under way may have come before this delivery, which another group made: ack it too.
                        owed @ Owed::Ack => {
                            *owed = Owed::Acks;
                            held.unsaved.push(id);
                        }
                        Owed::HandlingAgain | Owed::Acks => {}
                    }
                    Admission::Known
                }
                hash_map::Entry::Vacant(slot) => {
                    let acked = held.acked.as_ref().is_some_and(|acked| acked.contains(&id));
                    let settled = acked || held.position.settles(id);
                    slot.insert(if settled { Owed::Ack } else { Owed::Handling });
                    if !settled {
                        return Admission::New;
                    }
                    // Handled before, by whomever; at most the ack is missing.
                    held.unsaved.push(id);
                    Admission::Settled
                }
            },
        }
    }

    /// Marks an entry as handled.
    pub(crate) fn settle(&mut self, id: EntryId) {
        match self {
            Self::Exclusive { tracker, unsaved, .. } => {
                tracker.settle(id);
                *unsaved += 1;
            }
            Self::Shared(held) => {
                if let Some(owed @ (Owed::Handling | Owed::HandlingAgain)) = held.entries.get_mut(&id) {
                    *owed = Owed::Ack;
                    held.unsaved.push(id);
                }
            }
        }
    }

    /// Marks an entry as acked together with its dead letter.
    pub(crate) fn buried(&mut self, id: EntryId) {
        self.settle(id);
        if let Self::Shared(held) = self {
            held.letters += 1;
        }
    }

    /// Marks an entry as handled and durably settled.
    pub(crate) fn committed(&mut self, id: EntryId) {
        match self {
            Self::Exclusive { tracker, .. } => tracker.settle(id),
            Self::Shared(held) => {
                // What it was acked with may have come before the other delivery, which another group made.
                if held.entries.remove(&id) == Some(Owed::HandlingAgain) {
                    held.entries.insert(id, Owed::Ack);
                    held.unsaved.push(id);
                }
                if let Some(acked) = &mut held.acked {
                    acked.insert(id);
                }
            }
        }
    }

    /// Exclusive: how far the subscription is settled with these, which are the next.
    pub(crate) fn position_after(&self, deliveries: &[Delivery]) -> Option<Position> {
        match self {
            Self::Exclusive { tracker, ahead_bytes_max, .. } => {
                Some(tracker.position_after(deliveries.iter().map(Delivery::id), *ahead_bytes_max))
            }
            Self::Shared(_) => None,
        }
    }

    /// Forgets deliveries that were not handled, so that they may come again.
    pub(crate) fn release(&mut self, ids: impl Iterator<Item = EntryId>) {
        if let Self::Shared(held) = self {
            ids.for_each(|id| {
                held.entries.remove(&id);
            });
        }
    }

    /// How many settled entries are not in the checkpoint.
    pub(crate) fn unsaved(&self) -> usize {
        match self {
            Self::Exclusive { unsaved, .. } => *unsaved,
            Self::Shared(held) => held.unsaved.len(),
        }
    }

    /// How many entries are remembered.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Exclusive { tracker, .. } => tracker.len(),
            Self::Shared(held) => held.entries.len(),
        }
    }

    /// Whether the entry is known to be settled.
    pub(crate) fn is_settled(&self, id: EntryId) -> bool {
        match self {
            Self::Exclusive { tracker, .. } => tracker.is_settled(id),
            Self::Shared(held) => held.position.settles(id),
        }
    }

    /// Whether the entry is held, or settled.
    pub(crate) fn knows(&self, id: EntryId) -> bool {
        match self {
            Self::Exclusive { tracker, .. } => id <= tracker.read(),
            Self::Shared(held) => held.entries.contains_key(&id) || held.position.settles(id),
        }
    }

    /// What to save now.
    pub(crate) fn save(&mut self, ids_max: usize) -> Save {
        match self {
            Self::Exclusive { tracker, ahead_bytes_max, unsaved } => {
                let position = Some(tracker.position(*ahead_bytes_max));
                Save { position, settled: std::mem::take(unsaved), ..Save::default() }
            }
            Self::Shared(held) => {
                let rest = held.unsaved.split_off(ids_max.min(held.unsaved.len()));
                let ids = std::mem::replace(&mut held.unsaved, rest);
                let letters = held.letters.min(ids.len());
                held.letters -= letters;
                let known = (!held.position.ahead.is_empty()).then(|| Box::new(held.position.clone()));
                Save { ids, letters, known, ..Save::default() }
            }
        }
    }

    /// A save is durable, and the checkpoint stands at `watermark`, if that is of the epoch that is still ours.
    pub(crate) fn saved(&mut self, save: &Save, watermark: Option<EntryId>) {
        // What a transaction has settled counts by itself, but for a gap or the like that it made the watermark pass.
        if let (Self::Exclusive { tracker, unsaved: unsaved @ 0, .. }, Some(watermark)) =
            (&mut *self, watermark)
            && save.position.is_none()
            && watermark < tracker.watermark()
        {
            *unsaved = 1;
        }
        if let Self::Shared(held) = self {
            for &id in &save.ids {
                if let hash_map::Entry::Occupied(mut slot) = held.entries.entry(id) {
                    match slot.get_mut() {
                        owed @ Owed::Acks => *owed = Owed::Ack,
                        _ => drop(slot.remove()),
                    }
                }
            }
            if let Some(acked) = &mut held.acked {
                acked.extend(&save.ids);
            }
            // Should the group be moved back behind our back, what it brings again is known to be settled.
            if let Some(watermark) = watermark.filter(|&watermark| watermark > held.position.watermark) {
                held.position = std::mem::take(&mut held.position).at_watermark(watermark);
            }
        }
    }

    /// Whether this consumer's pending entries are being read again.
    pub(crate) fn recovering(&mut self, recovering: bool) {
        if let Self::Shared(held) = self {
            match (recovering, &held.acked) {
                (true, None) => held.acked = Some(HashSet::new()),
                (false, Some(_)) => held.acked = None,
                (true, Some(_)) | (false, None) => {}
            }
        }
    }

    /// A save failed: what it carried is unsaved again.
    pub(crate) fn not_saved(&mut self, save: Save) {
        match self {
            // The next position includes this one.
            Self::Exclusive { unsaved, .. } => *unsaved += save.settled.max(1),
            Self::Shared(held) => {
                held.letters += save.letters;
                let newer = std::mem::replace(&mut held.unsaved, save.ids);
                held.unsaved.extend(newer);
            }
        }
    }

    /// The position was loaded or set anew.
    pub(crate) fn resume(&mut self, position: Position) {
        if let Self::Shared(held) = self {
            held.position = position;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g13_what_comes_again_while_its_transaction_commits_is_acked_in_the_group_that_brought_it() {
        let id = EntryId::new(1, 0);
        let mut ledger = Ledger::Shared(Held::new(Position::default()));
        assert_eq!(ledger.admit(id), Admission::New);
        // The group was lost, and the one that followed delivers the entry again before the commit is known.
        assert_eq!(ledger.admit(id), Admission::Known);
        ledger.committed(id);
        assert_eq!(ledger.admit(id), Admission::Known);
        let save = ledger.save(10);
        assert_eq!(save.ids, [id, id]);
        ledger.saved(&save, None);
        assert_eq!((ledger.len(), ledger.unsaved()), (0, 0));
    }

    #[test]
    fn g7_a_gap_behind_what_a_transaction_settles_is_saved() {
        let id = |ms| EntryId::new(ms, 0);
        let tracker = Tracker::new(Position::default());
        let mut ledger = Ledger::Exclusive { tracker, ahead_bytes_max: 100, unsaved: 0 };
        assert_eq!(ledger.admit(id(1)), Admission::New);
        if let Ledger::Exclusive { tracker, unsaved, .. } = &mut ledger {
            tracker.skip(id(3), None);
            *unsaved += 1;
        }
        // While 1 is handled, nothing behind it can be passed.
        let save = ledger.save(10);
        assert_eq!(save.position.as_ref().unwrap().watermark, EntryId::ZERO);
        ledger.committed(id(1));
        ledger.saved(&Save::default(), Some(id(1)));
        assert_eq!(ledger.unsaved(), 1);
        let save = ledger.save(10);
        assert_eq!(save.position.as_ref().unwrap().watermark, id(3));
        ledger.saved(&save, Some(id(3)));
        assert_eq!(ledger.unsaved(), 0);
        // A store that answers with less than it was told is not asked again without end.
        ledger.saved(&save, Some(id(1)));
        assert_eq!(ledger.unsaved(), 0);
    }
}
