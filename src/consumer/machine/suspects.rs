//! Entries that a process may have died of. Each is noted before it is started, so that the next death tells.

use super::{Action, Machine, Note, Slot};
use crate::{Attempts, Delivery, EntryId, delivery::Care};

impl Machine {
    /// What is known before anything comes in: what is remembered of attempts, the keys that have dead letters, and up to which id
    /// an owner that died may have started entries.
    pub(crate) fn begin(
        &mut self,
        attempts: Vec<Attempts>,
        dead_keys: Vec<u64>,
        unclean: Option<EntryId>,
        outlived: Vec<EntryId>,
    ) {
        self.recalled(attempts);
        self.book.outlived(outlived);
        self.dead_keys = dead_keys.into_iter().collect();
        self.unclean = unclean.map(|until| (until, self.limits.window_entries_max));
    }

    pub(super) fn recalled(&mut self, attempts: Vec<Attempts>) {
        // What was settled meanwhile is remembered for nothing.
        let (settled, open): (Vec<_>, Vec<_>) =
            attempts.into_iter().partition(|attempts| self.ledger.is_settled(attempts.id));
        let settled_ids: Vec<_> = settled.iter().map(|attempts| attempts.id).collect();
        self.book.learn(settled);
        self.book.learn(open);
        settled_ids.into_iter().for_each(|id| self.book.committed(id));
    }

    /// A delivery that comes in, with what is remembered of it.
    pub(super) fn prepared(&mut self, mut delivery: Delivery) -> Delivery {
        let known = self.book.of(delivery.id());
        delivery.attempt = known.failures.saturating_add(1).min(self.limits.attempts_max);
        let may_be = match &mut self.unclean {
            Some((until, left)) if delivery.id() <= *until && *left > 0 => {
                *left -= 1;
                true
            }
            _ => delivery.deliveries > 1,
        };
        delivery.care = match () {
            () if known.crashes > 0 || known.doom.is_some() => Care::Alone,
            () if may_be => Care::Suspect,
            () => Care::None,
        };
        delivery
    }

    /// Starts these as soon as the store knows of it.
    pub(super) fn mark<E>(&mut self, slot: Slot, deliveries: Vec<Delivery>, actions: &mut Vec<Action<E>>) {
        self.book.mark(deliveries.iter().map(Delivery::id));
        self.marking.push((slot, deliveries));
        self.noted(actions);
    }

    /// The store was told something: suspects that it knows of start.
    pub(super) fn noted<E>(&mut self, actions: &mut Vec<Action<E>>) {
        let book = &self.book;
        let is_noted = |marked: &mut (Slot, Vec<Delivery>)| book.is_noted(marked.1.iter().map(Delivery::id));
        for (slot, deliveries) in self.marking.extract_if(.., is_noted) {
            actions.push(Action::Start { slot, deliveries });
        }
    }

    /// Those that have not started do not.
    pub(super) fn lapse_suspects(&mut self) {
        for (slot, deliveries) in std::mem::take(&mut self.marking) {
            self.alone &= !slot.alone;
            deliveries.iter().for_each(|delivery| self.book.survived(delivery.id()));
            self.queue.put_back(slot.key, deliveries);
        }
    }

    /// What is marked, as far as the store knows.
    pub(crate) fn marked(&self) -> Vec<EntryId> {
        self.book.marked()
    }

    /// What to note at the very end.
    pub(crate) fn farewell(&mut self) -> Option<Note> {
        self.book.farewell()
    }
}
