//! What lanes report.

use super::{End, Session};
use crate::{
    Delivery, Error, ErrorKind,
    consumer::{
        HandlerError,
        context::is_passing,
        machine::{Event, Finished},
    },
};

impl Session<'_> {
    pub(super) fn on_finished(&mut self, finished: Vec<Finished<HandlerError>>) -> Option<End> {
        let mut broken = None;
        let mut reports = Vec::with_capacity(finished.len());
        for finished in finished {
            match finished {
                Finished::Broken(error) => broken = Some(error),
                finished => {
                    self.look_at(&finished);
                    reports.push(finished);
                }
            }
        }
        // Whose epoch is over, or who cannot know what has been committed, begins again at the checkpoint.
        let again = |error: &Error| {
            matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Invalid) || is_passing(error)
        };
        let end = match broken {
            Some(error) if again(&error) => Some(End::Again(error)),
            Some(error) => {
                self.fail(error);
                None
            }
            None => None,
        };
        self.over = end.is_some();
        self.feed(Event::Finished(reports));
        end
    }

    fn look_at(&mut self, finished: &Finished<HandlerError>) {
        match finished {
            Finished::Failed { deliveries, failure, .. } => {
                let error = &failure.error;
                if let Some(Delivery { entry, attempt, .. }) = deliveries.first() {
                    tracing::warn!(id = %entry.id, attempt, count = deliveries.len(), %error, "the handler failed");
                }
            }
            Finished::Advanced(watermark) => {
                self.report.watermark = Some(*watermark);
                self.advanced_at = self.now();
            }
            _ => {}
        }
    }

    /// Who stops does not begin again: nobody would stop it then. What was not settled comes to the next one.
    pub(super) fn unless_stopping(&mut self, end: End) -> End {
        match end {
            End::Again(error) if self.deadline.is_some() => {
                self.report.lost(self.context, &error);
                self.failure.take().map_or(End::Stopped, End::Failed)
            }
            end => end,
        }
    }
}
