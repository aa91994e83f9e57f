//! What is known to be true of the subscription, and what must therefore hold.

use std::collections::BTreeSet;

use super::{
    letters::Grave,
    plan::{Ordering, Setup},
};
use crate::{Checkpoint, Delivery, EntryId, Epoch, Fields, Ownership, Position};

/// A property that does not hold: its name, and how it shows.
pub(super) type Verdict<T = ()> = Result<T, String>;

/// Entries of one key are handled in order, where that is promised.
pub(super) const KEYS: u64 = 3;

/// One entry, by the number that it carries.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    pub(super) id: EntryId,
    /// Which life of the stream it belongs to.
    pub(super) life: u32,
    /// It left the stream.
    pub(super) removed: bool,
    /// It did before the checkpoint could tell, or unseen.
    pub(super) before_it: bool,
    /// An operator said that it needs no handling.
    pub(super) excused: bool,
    /// How often a handler has succeeded with it since the checkpoint was last set back before it.
    pub(super) handled: u32,
    /// Rows from before that.
    pub(super) before: u32,
    /// A consumer that handled it has stopped and said that all is saved.
    pub(super) done: bool,
    /// How often a handler has failed with it, or rejected it.
    pub(super) failures: u32,
    /// A handler has rejected it.
    pub(super) rejected: bool,
    /// It was dead-lettered, since the checkpoint was last set back before it, or its letter lies there.
    pub(super) dead: bool,
    /// Its letter.
    pub(super) lies: Option<Grave>,
}

impl Fact {
    pub(super) fn new(id: EntryId, life: u32) -> Self {
        Self {
            id,
            life,
            removed: false,
            before_it: false,
            excused: false,
            handled: 0,
            before: 0,
            done: false,
            failures: 0,
            rejected: false,
            dead: false,
            lies: None,
        }
    }
}

/// The number that an entry carries.
pub(super) fn number(fields: &Fields) -> Option<u64> {
    fields.get("n").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
}

/// The effect of an entry in a transaction.
pub(super) fn row(n: u64) -> EntryId {
    EntryId::new(n + 1, 0)
}

/// A consumer, as far as the facts go.
#[derive(Debug, Clone, Default)]
pub(super) struct Witness {
    pub(super) who: usize,
    /// The life of the stream, and the time between two resets, in which it began.
    pub(super) life: u32,
    pub(super) era: u32,
    /// What was settled when it started.
    pub(super) settled: BTreeSet<u64>,
    /// What its handlers have succeeded with.
    pub(super) succeeded: BTreeSet<u64>,
    /// Something took place since then that may bring to it again what it has handled.
    pub(super) forgiven: bool,
    /// A pause has taken its epoch, and it has not taken the lease again. Until it notices it calls handlers, which G4 allows, and
    /// knows nothing of the letters that the next owner writes.
    pub(super) fenced: bool,
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) setup: Setup,
    pub(super) entries: Vec<Fact>,
    pub(super) life: u32,
    pub(super) era: u32,
    /// The next id in this life.
    pub(super) next_ms: u64,
    /// The checkpoint as it was seen last.
    pub(super) seen: Option<(Epoch, Position)>,
    /// The checkpoint is of a life of the stream that is over: the watermark then.
    pub(super) stale: Option<EntryId>,
    /// The group was lost when this was the last entry. Up to it, what was settled above the watermark may come again.
    pub(super) in_doubt: EntryId,
    /// Entries were removed that the checkpoint did not have as settled.
    pub(super) may_gap: bool,
    /// Entries were removed at all.
    pub(super) trimmed: bool,
}

impl Facts {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            setup,
            entries: Vec::new(),
            life: 0,
            era: 0,
            next_ms: 1,
            seen: None,
            stale: None,
            in_doubt: EntryId::ZERO,
            may_gap: false,
            trimmed: false,
        }
    }

    /// The entries that the stream has had in this life, with their numbers.
    pub(super) fn current(&self) -> impl Iterator<Item = (u64, &Fact)> {
        let life = self.life;
        (0..).zip(&self.entries).filter(move |(_, fact)| fact.life == life)
    }

    pub(super) fn watermark(&self) -> Option<EntryId> {
        self.seen.as_ref().map(|(_, position)| position.watermark)
    }

    /// The checkpoint has these as settled, or somebody who stopped has said so.
    pub(super) fn settled(&self) -> BTreeSet<u64> {
        let position = self.seen.as_ref().filter(|_| self.stale.is_none()).map(|(_, position)| position);
        let is_settled = |fact: &Fact| match position {
            Some(position) if fact.id <= self.in_doubt => fact.id <= position.watermark,
            Some(position) => fact.done || position.settles(fact.id),
            None => fact.done && fact.id > self.in_doubt,
        };
        self.current().filter(|(_, fact)| is_settled(fact)).map(|(n, _)| n).collect()
    }

    /// The group is lost.
    pub(super) fn lose_group(&mut self) {
        self.in_doubt = self.current().last().map_or(self.in_doubt, |(_, fact)| fact.id);
    }

    /// What is still wanted: entries that are there, and nobody has handled.
    pub(super) fn wanted(&self) -> Vec<EntryId> {
        self.current().filter(|(_, fact)| is_wanted(fact)).map(|(_, fact)| fact.id).collect()
    }

    /// What left the stream, and nobody has handled.
    pub(super) fn lost(&self) -> Vec<EntryId> {
        let is_lost = |fact: &Fact| {
            fact.removed && !fact.before_it && is_wanted(&Fact { removed: false, ..fact.clone() })
        };
        self.current().filter(|(_, fact)| is_lost(fact)).map(|(_, fact)| fact.id).collect()
    }

    /// Takes a look at the checkpoint: G2 and G3.
    pub(super) fn look(&mut self, checkpoint: Option<&Checkpoint>) -> Verdict {
        let Some(checkpoint) = checkpoint else {
            return match &self.seen {
                Some(seen) => Err(format!("G3: the checkpoint is gone; it was {seen:?}")),
                None => Ok(()),
            };
        };
        let (epoch, position) = (checkpoint.epoch, &checkpoint.position);
        if self.stale.is_some_and(|stale| position.watermark < stale) {
            // It was reset by policy: what was settled before says nothing of the new life.
            (self.stale, self.seen) = (None, None);
        }
        if let Some((before, was)) = &self.seen {
            if epoch < *before {
                return Err(format!("G4: the epoch fell from {before} to {epoch}"));
            }
            if position.watermark < was.watermark {
                return Err(format!(
                    "G3: the watermark fell from {} to {}",
                    was.watermark, position.watermark
                ));
            }
        }
        self.seen = Some((epoch, position.clone()));
        if self.stale.is_some() {
            return Ok(());
        }
        let mut settled = self.current().filter(|(_, fact)| position.settles(fact.id));
        match settled.find(|(_, fact)| is_wanted(fact)) {
            Some((_, fact)) => Err(format!("G2: {} is settled and was not handled: {position:?}", fact.id)),
            None => Ok(()),
        }
    }

    /// A handler is called: G5 and G10. Returns the number of the entry, if it is one of this life of the stream.
    pub(super) fn called(&self, witness: &Witness, delivery: &Delivery) -> Verdict<Option<u64>> {
        let id = delivery.id();
        let known =
            number(delivery.fields()).and_then(|n| Some((n, self.entries.get(usize::try_from(n).ok()?)?)));
        let Some((n, fact)) = known.filter(|(_, fact)| fact.id == id) else {
            return Err(format!("G1: {id} was delivered with {:?}", delivery.fields()));
        };
        if fact.life != self.life {
            return Ok(None);
        }
        if witness.era == self.era {
            if witness.settled.contains(&n) {
                return Err(format!("G5: {id} was settled before consumer {} began", witness.who));
            }
            if witness.succeeded.contains(&n) && !witness.forgiven {
                return Err(format!(
                    "G5: {id} comes to consumer {} again, which has handled it",
                    witness.who
                ));
            }
            self.in_order(n, fact)?;
            if !witness.fenced {
                self.is_free(n, fact)?;
            }
        }
        Ok(Some(n))
    }

    /// G10: all before it, in the stream or of its key, were handled.
    pub(super) fn in_order(&self, n: u64, fact: &Fact) -> Verdict {
        let same: fn(u64, u64) -> bool = match (self.setup.ownership, self.setup.ordering) {
            (Ownership::Shared, _) | (_, Ordering::Unordered) => return Ok(()),
            (_, Ordering::Strict) => |_, _| true,
            (_, Ordering::Keyed) => |a, b| a % KEYS == b % KEYS,
        };
        let mut before = self.current().filter(|(m, _)| *m < n && same(*m, n));
        match before.find(|(_, fact)| is_wanted(fact)) {
            Some((_, skipped)) => Err(format!("G10: {} before {}", fact.id, skipped.id)),
            None => Ok(()),
        }
    }

    /// What was committed: G9. Rows are what counts as handled then.
    pub(super) fn committed(&mut self, rows: &[EntryId]) -> Verdict {
        let mut counts = vec![0; self.entries.len()];
        for row in rows {
            let count = usize::try_from(row.ms - 1).ok().and_then(|n| counts.get_mut(n));
            *count.ok_or_else(|| format!("G9: a row of no entry: {row}"))? += 1;
        }
        for (fact, count) in self.entries.iter_mut().zip(counts) {
            match count - fact.before {
                handled @ (0 | 1) => fact.handled = handled,
                more => return Err(format!("G9: {} took effect {more} times", fact.id)),
            }
        }
        Ok(())
    }

    /// Rows up to now are of the time before a reset.
    pub(super) fn begin_rows(&mut self, to: EntryId) {
        let life = self.life;
        for fact in self.entries.iter_mut().filter(|fact| fact.life == life && fact.id > to) {
            fact.before += fact.handled;
        }
    }

    /// A handler has succeeded.
    pub(super) fn handled(&mut self, n: u64) {
        self.fact(n).handled += 1;
    }

    /// An operator, or the model in its name, has set the checkpoint to this id.
    pub(super) fn reset(&mut self, to: EntryId) {
        self.era += 1;
        (self.seen, self.stale) = (None, None);
        let life = self.life;
        for fact in self.entries.iter_mut().filter(|fact| fact.life == life) {
            if fact.id > to {
                (fact.handled, fact.excused, fact.done) = (0, false, false);
                fact.dead = fact.lies.is_some();
                if let Some(grave) = &mut fact.lies {
                    grave.old = true;
                }
            } else {
                fact.excused = true;
            }
        }
    }

    /// Whether there is no checkpoint, or one at the beginning that has not counted what was removed: nobody can miss an entry.
    fn is_blind(&self) -> bool {
        let begins = |p: &Position| p.watermark == EntryId::ZERO && p.ahead.is_empty() && p.ordinal.is_none();
        self.seen.as_ref().is_none_or(|(_, position)| begins(position))
    }

    /// All up to this id leave the stream, perhaps in a moment in which nobody can see it.
    pub(super) fn remove_up_to(&mut self, last: EntryId, unseen: bool) {
        let (life, is_before) = (self.life, unseen || self.is_blind());
        for fact in self.entries.iter_mut().filter(|fact| fact.life == life && fact.id <= last) {
            fact.before_it |= is_before && !fact.removed;
            fact.removed = true;
        }
    }

    /// The stream is deleted, and with it all that was known of what comes next.
    pub(super) fn end_life(&mut self, watermark: EntryId) {
        (self.life, self.era, self.next_ms) = (self.life + 1, self.era + 1, 1);
        // What was missing before may be found a little later.
        self.in_doubt = EntryId::ZERO;
        self.stale = Some(watermark);
    }

    /// What is there and not settled by the checkpoint.
    pub(super) fn unsettled(&self) -> Vec<EntryId> {
        let position = self.seen.as_ref().map(|(_, position)| position);
        let is_settled = |fact: &Fact| fact.removed || position.is_some_and(|p| p.settles(fact.id));
        self.current().filter(|(_, fact)| !is_settled(fact)).map(|(_, fact)| fact.id).collect()
    }

    pub(super) fn fact(&mut self, n: u64) -> &mut Fact {
        &mut self.entries[usize::try_from(n).expect("as many as fit in memory")]
    }
}

pub(super) fn is_wanted(fact: &Fact) -> bool {
    fact.handled == 0 && !fact.dead && !fact.removed && !fact.excused
}
