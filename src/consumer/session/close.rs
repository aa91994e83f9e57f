//! The end of a session: what is left to say, within the deadline of the stop.

use std::time::Duration;

use super::{End, Session};
use crate::consumer::{keeper, ledger::Save};

/// A last word is worth a try, also when the deadline of the stop is over.
pub(super) const LAST_WORD_MIN: Duration = Duration::from_millis(100);

impl Session<'_> {
    /// How long what comes last may take, within the deadline of the stop.
    pub(super) fn left(&self) -> Duration {
        let left = self.deadline.map_or(keeper::GOODBYE_MAX, |deadline| deadline.saturating_sub(self.now()));
        left.min(keeper::GOODBYE_MAX)
    }

    /// Ends what is left and says goodbye.
    pub(super) async fn close(&mut self, end: &End) {
        // Before anything is waited for: nothing more is to start.
        self.running.abort_all();
        self.reading.stop();
        let counts = self.machine.counts();
        self.report.delivered += counts.delivered;
        self.report.settled += counts.settled;
        self.report.retried += counts.retried;
        self.report.skipped += counts.skipped + counts.known;
        self.report.dead_lettered += counts.dead_lettered;
        self.report.given_up += counts.given_up;
        self.report.refused += counts.refused;
        self.report.abandoned += counts.delivered - counts.ended();
        self.report.unsaved += self.machine.unsaved() as u64;
        match end {
            // Its epoch may be over, so the next session says it.
            End::Again(_) => self.context.outlive(self.machine.marked()),
            _ => self.farewell().await,
        }
        if self.count_open && self.drained {
            // The last word of a shared subscription: a checkpoint that can count what is lost while nobody reads.
            let nothing = Save::default();
            let saving = self.context.settler.save(self.context, self.epoch, &nothing, true);
            let limit = self.context.clock.sleep(self.left());
            tokio::select! {
                biased;
                saved = saving => if let Err(error) = saved {
                    tracing::info!(%error, "the last checkpoint has no ordinal");
                },
                () = limit => tracing::info!("no answer in time: the last checkpoint has no ordinal"),
            }
        }
        self.keeper.abort();
        if !matches!(end, End::Again(_)) {
            keeper::leave(self.context, self.left().max(LAST_WORD_MIN)).await;
        }
    }
}
