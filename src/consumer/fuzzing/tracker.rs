//! The tracker beside a naive model: all that was ever read, and whether it is settled.

use crate::{
    EntryId, Position, SettledAhead,
    consumer::tracker::{Admission, Tracker},
    fuzzing::Source,
};

/// As many ids as a case goes through, at most.
const IDS: u64 = 120;

/// Whatever comes in, whatever is settled and whatever is skipped: the tracker says what the model says.
pub fn tracker(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    while !source.is_empty() {
        world.step(&mut source);
        world.check(&mut source);
    }
}

struct Slot {
    nth: u64,
    ordinal: Option<u64>,
    settled: bool,
}

struct World {
    tracker: Tracker,
    stored: Position,
    /// All that was read, in order.
    read: Vec<Slot>,
    ordinal: Option<u64>,
    /// The watermark that was seen last.
    seen: EntryId,
}

fn id(nth: u64) -> EntryId {
    // Over the end of a millisecond, whose last id the next one follows at once.
    match nth.checked_sub(40) {
        Some(seq) => EntryId::new(6, seq),
        None => EntryId::new(5, u64::MAX - (39 - nth)),
    }
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let ordinal = source.one_in(2).then_some(7);
        let top = source.below(40) as u64;
        let mut holes: Vec<u64> = (0..source.below(8)).map(|_| 1 + source.below(40) as u64).collect();
        holes.sort_unstable();
        holes.dedup();
        let ahead = SettledAhead::new(id(top), holes.into_iter().map(id));
        let stored = Position::at(id(0)).with_ahead(ahead).with_ordinal(ordinal);
        let tracker = Tracker::new(stored.clone());
        Self { tracker, seen: stored.watermark, stored, read: Vec::new(), ordinal }
    }

    fn last(&self) -> u64 {
        self.read.last().map_or(0, |slot| slot.nth)
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.below(10) {
            0..4 => {
                for _ in 0..=source.below(4) {
                    // Ids have gaps between them, or none.
                    let nth = self.last() + 1 + [0, 0, 1, 5][source.below(4)];
                    if nth < IDS {
                        self.admit(nth);
                    }
                }
            }
            4 => {
                let known = source.below(IDS as usize) as u64;
                if known <= self.last() {
                    assert_eq!(self.tracker.admit(id(known)), Admission::Known, "{known}");
                }
            }
            5..8 => {
                let open: Vec<_> = self.unsettled().collect();
                if let Some(&nth) = open.get(source.below(open.len())) {
                    self.settle(nth);
                }
            }
            8 => self.settle(source.below(IDS as usize) as u64),
            _ => {
                let after = (self.last() + source.below(6) as u64).min(IDS);
                self.skip(
                    after,
                    source.one_in(2).then_some(self.ordinal.unwrap_or_default() + source.below(9) as u64),
                );
            }
        }
    }

    fn admit(&mut self, nth: u64) {
        let settled = self.stored.ahead.contains(id(nth));
        let expected = if settled { Admission::Settled } else { Admission::New };
        assert_eq!(self.tracker.admit(id(nth)), expected, "{nth}");
        self.ordinal = self.ordinal.map(|ordinal| ordinal + 1);
        self.read.push(Slot { nth, ordinal: self.ordinal, settled });
    }

    fn settle(&mut self, nth: u64) {
        self.tracker.settle(id(nth));
        if let Some(slot) = self.read.iter_mut().find(|slot| slot.nth == nth) {
            slot.settled = true;
        }
    }

    fn skip(&mut self, after: u64, ordinal: Option<u64>) {
        self.tracker.skip(id(after), ordinal);
        self.ordinal = ordinal;
        if after > self.last() {
            self.read.push(Slot { nth: after, ordinal: self.ordinal, settled: true });
        } else if let Some(last) = self.read.last_mut() {
            last.ordinal = self.ordinal;
        }
    }

    fn unsettled(&self) -> impl Iterator<Item = u64> {
        self.read.iter().filter(|slot| !slot.settled).map(|slot| slot.nth)
    }

    /// The last entry before the first that is not settled, if any is.
    fn watermark(&self) -> Option<&Slot> {
        self.read.iter().take_while(|slot| slot.settled).last()
    }

    fn settles(&self, nth: u64) -> bool {
        match self.read.iter().find(|slot| slot.nth == nth) {
            Some(slot) => slot.settled,
            None => nth > self.last() && self.stored.ahead.contains(id(nth)),
        }
    }

    fn check(&mut self, source: &mut Source<'_>) {
        let watermark = self.watermark().map_or(self.stored.watermark, |slot| id(slot.nth));
        let position = self.tracker.position(usize::MAX);
        assert_eq!(position.watermark, watermark);
        assert!(watermark >= self.seen, "G3");
        self.seen = watermark;
        assert_eq!(self.tracker.read(), id(self.last()));
        assert_eq!(self.tracker.read_ordinal(), self.ordinal);
        assert_eq!(self.tracker.first_unsettled(), self.unsettled().next().map(id));
        let behind = self.read.iter().skip_while(|slot| slot.settled).count();
        assert_eq!(self.tracker.len(), behind);
        if let Some(slot) = self.watermark() {
            assert_eq!(position.ordinal, slot.ordinal);
        }
        // Of ids that are no entries a position may say what it likes.
        let entries = self.read.iter().map(|slot| slot.nth).chain(self.last() + 1..IDS);
        let short = self.tracker.position(source.below(60));
        // As a store keeps it: where no hole is left, the watermark is the top.
        let position = position.merged_into(&self.stored).unwrap_or_else(|| self.stored.clone());
        for nth in entries {
            let settled = self.settles(nth);
            assert_eq!(position.settles(id(nth)), settled, "{nth} of {position:?}");
            assert!(settled || !short.settles(id(nth)), "{nth} of {short:?}");
        }
        self.foretold(source.below(6));
    }

    /// What a transaction of the next entries is to store is where settling them leads to.
    fn foretold(&self, count: usize) {
        let next: Vec<_> = self.unsettled().take(count).collect();
        let foretold = self.tracker.position_after(next.iter().map(|&nth| id(nth)), usize::MAX);
        let settles = |nth| self.settles(nth) || next.contains(&nth);
        for slot in &self.read {
            assert_eq!(foretold.settles(id(slot.nth)), settles(slot.nth), "{} of {foretold:?}", slot.nth);
        }
        let passed = self.read.iter().take_while(|slot| settles(slot.nth)).last();
        if let Some(passed) = passed {
            assert!(foretold.watermark >= id(passed.nth), "{foretold:?}");
            assert!(foretold.ordinal.is_none() || foretold.ordinal == passed.ordinal, "{foretold:?}");
        }
    }
}
