//! What an operator wants to know of a running session.

use super::Session;
use crate::consumer::{ledger::Ledger, observer::Status};

impl Session<'_> {
    pub(super) fn status(&self) -> Status {
        let state = self.context.state();
        let group = state.as_ref().and_then(|state| state.group.as_ref());
        let (read, oldest) = match self.machine.ledger() {
            Ledger::Exclusive { tracker, .. } => (tracker.read_ordinal(), tracker.first_unsettled()),
            Ledger::Shared(_) => {
                (group.and_then(|group| group.entries_read), group.and_then(|group| group.first_pending))
            }
        };
        let lag = state.as_ref().and_then(|state| state.entries_added?.checked_sub(read?));
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
