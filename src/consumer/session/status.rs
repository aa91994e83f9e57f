//! What an operator wants to know of a running session.

use super::Session;
use crate::{
    EntryId,
    backend::StreamState,
    consumer::{ledger::Ledger, observer::Status},
};

impl Session<'_> {
    pub(super) fn status(&self) -> Status {
        let state = self.context.state();
        let group = state.as_ref().and_then(|state| state.group.as_ref());
        let (delivered, read, oldest) = match self.machine.ledger() {
            Ledger::Exclusive { tracker, .. } => {
                (Some(tracker.read()), tracker.read_ordinal(), tracker.first_unsettled())
            }
            Ledger::Shared(_) => (
                group.map(|group| group.last_delivered),
                group.and_then(|group| group.entries_read),
                group.and_then(|group| group.first_pending),
            ),
        };
        let lag = state.as_ref().and_then(|state| lag(state, delivered, read));
        let in_flight = self.machine.in_flight();
        let held = group.map_or(in_flight as u64, |group| group.pending);
        Status {
            lag,
            backlog: lag.map(|lag| lag + held),
            in_flight,
            unsaved: self.machine.ledger().unsaved(),
            oldest_unsettled_age: oldest.map(|id| self.context.age(id)),
            checkpoint_age: self.now().saturating_sub(self.advanced_at),
            watermark: self.report.watermark.unwrap_or_default(),
        }
    }
}

/// How many entries are behind the last that was delivered, if the counts can tell.
fn lag(state: &StreamState, delivered: Option<EntryId>, read: Option<u64>) -> Option<u64> {
    if delivered.is_some_and(|delivered| delivered >= state.last_id) {
        return Some(0);
    }
    // Over a trim that a group had not read up to, a server counts too little as read for ever after.
    state.entries_added?.checked_sub(read?).filter(|&lag| lag <= state.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_cannot_be_is_unknown() {
        let mut state = StreamState::new(EntryId::new(9, 0), 4);
        state.entries_added = Some(9);
        let at = |delivered, read| lag(&state, Some(EntryId::new(delivered, 0)), read);
        assert_eq!(at(7, Some(7)), Some(2));
        assert_eq!(at(9, Some(6)), Some(0), "nothing is behind it, whatever was counted");
        assert_eq!(at(9, None), Some(0));
        assert_eq!(at(7, None), None);
        assert_eq!(at(7, Some(4)), None, "more than there is");
        assert_eq!(at(7, Some(11)), None);
    }
}
