//! How much may come in.

use super::Machine;
use crate::consumer::ledger::Ledger;

/// One is under way, and one may begin as soon as it ends: the server need not wait for what is done with a batch.
const READS_MAX: usize = 2;

impl Machine {
    /// How many deliveries may come by another way than a read.
    pub(crate) fn room(&self) -> usize {
        if self.stopping {
            return 0;
        }
        let bytes = self.limits.in_flight_bytes_max.saturating_sub(self.in_flight_bytes);
        let entries = self.limits.in_flight_entries_max.saturating_sub(self.in_flight);
        // Where nothing is in flight, an entry that is larger than the limit must come as well.
        entries.min(self.by_bytes(bytes).max(usize::from(self.in_flight == 0)))
    }

    /// How many entries of the size that is expected are so many bytes.
    fn by_bytes(&self, bytes: usize) -> usize {
        // Before the first batch nothing is known of their size: begin with few.
        bytes.checked_div(self.entry_bytes).unwrap_or(self.limits.read_entries_max.div_ceil(8))
    }

    /// How many entries were read and may not be in the checkpoint.
    fn window(&self) -> usize {
        match self.ledger {
            // What is unsaved is held.
            Ledger::Shared(_) => self.ledger.len(),
            // What is settled ahead counts twice until it is saved.
            Ledger::Exclusive { .. } => self.ledger.len() + self.unsaved(),
        }
    }

    /// How many entries to read now, or behind the read under way, if any.
    pub(super) fn demand(&self) -> Option<usize> {
        let limits = &self.limits;
        let asked: usize = self.reads.iter().sum();
        let window = self.window() + asked;
        let is_ahead = !self.reads.is_empty();
        // Of the first batch nobody knows how large its entries are.
        if self.reads.len() >= READS_MAX || (is_ahead && self.entry_bytes == 0) {
            return None;
        }
        if window >= limits.window_entries_max {
            return None;
        }
        let room = (limits.in_flight_entries_max.saturating_sub(self.in_flight + asked))
            .min(limits.window_entries_max - window);
        // Not in dribs: wait until there is room for a whole read, or for half of all.
        if room < limits.read_entries_max.min(limits.in_flight_entries_max.div_ceil(2)) {
            return None;
        }
        let expected = asked.saturating_mul(self.entry_bytes);
        let bytes = limits.in_flight_bytes_max.saturating_sub(self.in_flight_bytes.saturating_add(expected));
        if bytes < limits.in_flight_bytes_max / 2 {
            return None;
        }
        Some(limits.read_entries_max.min(room).min(self.by_bytes(bytes).max(1)))
    }
}
