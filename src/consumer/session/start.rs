//! In which task a lane runs.

use std::sync::Arc;

use tracing::Instrument;

use super::Session;
use crate::consumer::lane::Chunk;

/// How many deliveries are tried without a task of their own.
const AT_ONCE_MAX: usize = 16;

impl Session<'_> {
    /// Runs a lane: in a task of its own, unless it is likely to end at once.
    pub(super) fn start(&mut self, chunk: Chunk) {
        if self.over {
            // Whoever begins again starts with what came first.
            return;
        }
        // Where little comes, waking a task costs more than most handlers do. But those that run at once must not wait for each
        // other to return, and a handler that blocks its thread must not hold up what else is done here.
        let is_tried = self.is_strict && chunk.deliveries.len() <= AT_ONCE_MAX;
        let (clock, desk) = (self.context.clock.clone(), Arc::clone(&self.desk));
        let mut lane = Arc::clone(self.lanes).run(chunk, Arc::clone(&self.desk));
        if is_tried && self.desk.is_quick() {
            if !desk.at_once(&clock, &mut lane) {
                self.spawn(lane);
            }
        } else if is_tried {
            self.spawn(async move {
                if !desk.at_once(&clock, &mut lane) {
                    lane.await;
                }
            });
        } else {
            self.spawn(lane);
        }
    }

    fn spawn(&mut self, lane: impl Future<Output = ()> + Send + 'static) {
        // What a handler logs is under the span of its consumer wherever it runs.
        self.running.spawn(lane.in_current_span());
    }
}
