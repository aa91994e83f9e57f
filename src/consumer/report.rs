//! What a consumer has done, when it ends.

use super::{context::Context, observer::Observation, settings::Ownership};
use crate::{EntryId, Error};

/// What a run of a consumer has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Entries that came in to be handled.
    pub delivered: u64,
    /// Entries that were handled with success.
    pub settled: u64,
    /// Attempts that failed and were repeated.
    pub retried: u64,
    /// Entries that came in again while they were held or settled, and were not handled again.
    pub skipped: u64,
    /// Entries that were taken over from dead consumers.
    pub claimed: u64,
    /// Entries that were moved to the dead letters.
    pub dead_lettered: u64,
    /// Entries that were given up and settled by [`OnExhausted::Skip`](crate::OnExhausted::Skip).
    pub given_up: u64,
    /// Entries that were to be dead-lettered, and were not, because another consumer held them by then.
    pub refused: u64,
    /// Gaps that were met and skipped.
    pub gaps: u64,
    /// How often a store could not answer and was asked again.
    pub reconnects: u64,
    /// How often the exclusive lease was lost.
    pub leases_lost: u64,
    /// Deliveries that came in and were not handled when the run ended. Their entries are delivered again.
    pub abandoned: u64,
    /// Entries that were handled, but whose checkpoint could not be written before the deadline of the stop. They are
    /// delivered again.
    pub unsaved: u64,
    /// The watermark that was stored last, if any was.
    pub watermark: Option<EntryId>,
}

impl Report {
    /// A session ended because it could not go on as the owner.
    pub(crate) fn lost(&mut self, context: &Context, error: &Error) {
        if context.settings.ownership == Ownership::Exclusive {
            self.leases_lost += 1;
            context.report(&Observation::Lost(error));
        }
    }
}
