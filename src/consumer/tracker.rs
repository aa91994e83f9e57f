//! Which entries of an exclusive subscription are settled: a pure window over the entries that were read.
//!
//! The owner reads every entry, in order, so the window is sorted by id and complete.

use std::collections::VecDeque;

use crate::{EntryId, IdRange, Incarnation, Position, SettledAhead};

/// What becomes of a delivery that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is new: handle it.
    New,
    /// It is held already, or was: drop it.
    Known,
    /// The checkpoint says that it is settled: do not handle it again.
    Settled,
}

#[derive(Debug)]
struct Slot {
    id: EntryId,
    ordinal: Option<u64>,
    settled: bool,
}

/// The window from the watermark to the last entry that was read.
#[derive(Debug)]
pub(crate) struct Tracker {
    watermark: EntryId,
    /// Entries ever added up to the watermark, where that is known.
    ordinal: Option<u64>,
    /// Entries ever added up to the last that was read.
    read_ordinal: Option<u64>,
    incarnation: Option<Incarnation>,
    /// What the checkpoint says of entries that are to be read again.
    ahead: SettledAhead,
    window: VecDeque<Slot>,
    /// How many slots of the window are settled.
    settled: usize,
    #[cfg(test)]
    pub(crate) mutant: Option<Mutant>,
}

/// Ways to break a tracker, to show that the properties notice.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The watermark is the highest settled id.
    HighestSettled,
    /// Entries that the checkpoint has as settled ahead are handled again.
    ForgetAhead,
    /// An entry that is held already is handled once more.
    AdmitTwice,
    /// The watermark includes the first entry that is not settled.
    OffByOne,
    /// While something is in flight, the position is told too low.
    FallsBack,
}

impl Tracker {
    pub(crate) fn new(position: Position) -> Self {
        Self {
            watermark: position.watermark,
            ordinal: position.ordinal,
            read_ordinal: position.ordinal,
            incarnation: position.incarnation,
            ahead: position.ahead,
            window: VecDeque::new(),
            settled: 0,
            #[cfg(test)]
            mutant: None,
        }
    }

    #[cfg(test)]
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Learns the life of a stream that was not there at the start: a checkpoint without one would belong to any stream.
    pub(crate) fn identify(&mut self, incarnation: impl FnOnce() -> Option<Incarnation>) {
        if self.incarnation.is_none() {
            self.incarnation = incarnation();
        }
    }

    /// How many entries lie between the watermark and the last that was read.
    pub(crate) fn len(&self) -> usize {
        self.window.len()
    }

    /// Up to where all is settled.
    pub(crate) fn watermark(&self) -> EntryId {
        self.watermark
    }

    /// The last id that was read.
    pub(crate) fn read(&self) -> EntryId {
        self.window.back().map_or(self.watermark, |slot| slot.id)
    }

    /// The first entry that was read and is not settled.
    pub(crate) fn first_unsettled(&self) -> Option<EntryId> {
        self.window.front().map(|slot| slot.id)
    }

    /// How many entries were ever added up to the last that was read, by our own count.
    pub(crate) fn read_ordinal(&self) -> Option<u64> {
        self.read_ordinal
    }

    /// Whether the entry is known to be settled.
    pub(crate) fn is_settled(&self, id: EntryId) -> bool {
        id <= self.watermark || self.ahead.contains(id)
    }

    /// Takes an entry that was read.
    pub(crate) fn admit(&mut self, id: EntryId) -> Admission {
        #[cfg(test)]
        if self.is(Mutant::AdmitTwice) && id <= self.read() && id > self.watermark {
            return Admission::New;
        }
        // `<=`: an entry equal to the watermark, or to the last one, was here before.
        if id <= self.read() {
            return Admission::Known;
        }
        let settled = self.ahead.contains(id);
        #[cfg(test)]
        let settled = settled && !self.is(Mutant::ForgetAhead);
        self.read_ordinal = self.read_ordinal.map(|ordinal| ordinal + 1);
        self.window.push_back(Slot { id, ordinal: self.read_ordinal, settled });
        if settled {
            self.settled += 1;
            self.rise();
            return Admission::Settled;
        }
        Admission::New
    }

    /// Marks an entry as settled. Once more is harmless.
    pub(crate) fn settle(&mut self, id: EntryId) {
        // In strict order the first slot is the one.
        let index = match self.window.front() {
            Some(first) if first.id == id => Ok(0),
            _ => self.window.binary_search_by_key(&id, |slot| slot.id),
        };
        let Ok(index) = index else { return };
        if !std::mem::replace(&mut self.window[index].settled, true) {
            self.settled += 1;
            self.rise();
        }
    }

    /// Moves the watermark over the settled entries behind it, and stops before the first that is not.
    ///
    /// With 5 settled and 4 not, a watermark of 5 would let a crash drop 4: on restart all up to 5 counts as settled.
    fn rise(&mut self) {
        #[cfg(test)]
        match self.mutant {
            Some(Mutant::HighestSettled) => {
                if let Some(slot) = self.window.iter().rev().find(|slot| slot.settled) {
                    self.watermark = slot.id;
                    self.window.retain(|slot| slot.id > self.watermark);
                    self.settled = 0;
                }
                return;
            }
            Some(Mutant::OffByOne) => {
                while self.window.front().is_some_and(|slot| slot.settled) {
                    self.window.pop_front();
                    self.settled -= 1;
                }
                self.watermark = self.window.front().map_or(self.watermark, |slot| slot.id);
                return;
            }
            _ => {}
        }
        while let Some(slot) = self.window.front()
            && slot.settled
        {
            self.watermark = slot.id;
            self.ordinal = slot.ordinal;
            self.settled -= 1;
            self.window.pop_front();
        }
    }

    /// Goes on behind entries that are gone: the next one that is read is the first above `after`, and `ordinal` entries were
    /// ever added up to there.
    pub(crate) fn skip(&mut self, after: EntryId, ordinal: Option<u64>) {
        self.read_ordinal = ordinal;
        if after > self.read() {
            // In the place of all that is gone, so that the watermark passes it when what was read before it is settled.
            self.window.push_back(Slot { id: after, ordinal: self.read_ordinal, settled: true });
            self.settled += 1;
            self.rise();
        } else if let Some(last) = self.window.back_mut() {
            last.ordinal = self.read_ordinal;
        } else {
            self.ordinal = self.read_ordinal;
        }
    }

    /// How far the subscription is settled, with a settled-ahead set of at most `bytes` bytes.
    pub(crate) fn position(&self, bytes: usize) -> Position {
        #[cfg(test)]
        if self.is(Mutant::FallsBack) && !self.window.is_empty() {
            return Position::at(EntryId::new(self.watermark.ms.saturating_sub(3), 0));
        }
        Position::at(self.watermark)
            .with_ahead(self.ahead_now().truncated(bytes))
            .with_ordinal(self.ordinal)
            .with_incarnation(self.incarnation.clone())
    }

    /// The position once these are settled as well. They ascend, and are the next that are not settled.
    pub(crate) fn position_after(&self, ids: impl Iterator<Item = EntryId>, bytes: usize) -> Position {
        let mut ids = ids.peekable();
        let passed = self.window.iter().take_while(|slot| slot.settled || ids.next_if_eq(&slot.id).is_some());
        let Some(last) = passed.last() else { return self.position(bytes) };
        let after = self.position(bytes).at_watermark(last.id);
        let ordinal = last.ordinal.filter(|_| after.watermark == last.id);
        after.with_ordinal(ordinal)
    }

    fn ahead_now(&self) -> SettledAhead {
        // What the checkpoint said of entries that were not read again still holds: they come yet, or they are gone. Without
        // it the top would fall, and a store would take the position for an older one.
        let said = self.ahead.top().filter(|top| *top > self.watermark);
        let last = if self.settled > 0 { self.window.iter().rev().find(|slot| slot.settled) } else { None };
        let top = said.max(last.map(|slot| slot.id));
        let Some(top) = top else { return SettledAhead::default() };
        let mut holes: Vec<IdRange> = Vec::new();
        let mut open = false;
        for slot in self.window.iter().take_while(|slot| slot.id < top) {
            match (slot.settled, open) {
                (false, true) => holes.last_mut().expect("a hole is open").last = slot.id,
                (false, false) => holes.push(IdRange { first: slot.id, last: slot.id }),
                (true, _) => {}
            }
            open = !slot.settled;
        }
        if top > self.read() {
            // A run of unsettled entries may have been read in part.
            let next = self.read().next().unwrap_or(EntryId::MAX);
            let rest = self.ahead.holes().iter().filter(|hole| hole.last >= next);
            holes.extend(rest.map(|hole| IdRange { first: hole.first.max(next), last: hole.last }));
        }
        SettledAhead::from_ranges(top, holes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the model: a later owner held such an ordinal against the stream, and told a gap.
    #[test]
    fn g7_what_was_read_before_the_count_was_known_has_no_ordinal() {
        let id = |ms| EntryId::new(ms, 0);
        for after in [6, 9] {
            let mut tracker = Tracker::new(Position::at(id(4)));
            for ms in [5, 6] {
                tracker.admit(id(ms));
            }
            tracker.skip(id(after), Some(after));
            tracker.admit(id(10));
            let position = |tracker: &Tracker| {
                let position = tracker.position(usize::MAX);
                (position.watermark.ms, position.ordinal)
            };
            assert_eq!(position(&tracker), (4, None));
            tracker.settle(id(5));
            assert_eq!(position(&tracker), (5, None));
            let next = tracker.position_after([id(6), id(10)].into_iter(), usize::MAX);
            assert_eq!((next.watermark, next.ordinal), (id(10), Some(after + 1)));
            tracker.settle(id(6));
            assert_eq!(position(&tracker), (after, Some(after)));
        }
    }

    #[test]
    fn g5_the_top_of_what_is_settled_ahead_does_not_fall_when_its_entry_is_gone() {
        let id = |ms| EntryId::new(ms, 0);
        let stored = Position::at(id(0)).with_ahead(SettledAhead::new(id(5), [id(1), id(2)]));
        let mut tracker = Tracker::new(stored.clone());
        // 5 was deleted meanwhile.
        for ms in [1, 2, 4, 10] {
            tracker.admit(id(ms));
        }
        tracker.settle(id(2));
        let kept = tracker.position(usize::MAX).merged_into(&stored).expect("2 is settled as well");
        assert!(kept.settles(id(2)) && kept.settles(id(4)) && !kept.settles(id(1)), "{kept:?}");
    }
}
