//! How a run ends: nothing goes wrong any more, and all must come right.

use std::time::Duration;

use super::{Verdict, World};

/// How long all may take to come right.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const POLL: Duration = Duration::from_millis(5);

impl World {
    pub(super) async fn finish(&mut self) -> Verdict {
        self.audit().lock().note(format_args!("mended"));
        if self.paused {
            self.pause().await;
        }
        while self.appends.join_next().await.is_some() {}
        // What only the group knows as settled reaches the checkpoint with the next save.
        self.settle_down(false).await?;
        self.stop_all().await?;
        // G5: what a new consumer is given after a stop is what was appended since, and nothing else.
        self.append_some(1).await;
        self.start();
        self.settle_down(true).await?;
        self.stop_all().await?;
        self.count_letters().await;
        let mut audit = self.audit().lock();
        audit.oracle();
        audit.verdict()
    }

    /// Waits until all is handled, and settled: in the checkpoint, or for the group at least.
    async fn settle_down(&mut self, saved: bool) -> Verdict {
        let since = self.clock.elapsed();
        let mut round = 0;
        loop {
            round += 1;
            if self.setup.parks > 0 && round % 20 == 0 {
                // Keys wait for it, once there is no more room.
                self.handle_letters().await;
            }
            self.actors.iter_mut().for_each(super::Actor::heal);
            if self.actors.is_empty() {
                self.start();
            }
            self.sleep(POLL).await;
            self.observe().await?;
            let (wanted, unsettled, stale) = {
                let audit = self.audit().lock();
                (audit.wanted(), audit.unsettled(saved), audit.stale)
            };
            if wanted.is_empty() && unsettled.is_empty() && !stale {
                return Ok(());
            }
            if self.clock.elapsed().saturating_sub(since) > PATIENCE {
                return Err(format!("G1: a stall: {wanted:?} not handled, {unsettled:?} not settled"));
            }
        }
    }

    async fn stop_all(&mut self) -> Verdict {
        while !self.actors.is_empty() {
            let now = self.clock.elapsed();
            // One that fails meanwhile is followed by another.
            self.actors.iter_mut().for_each(|actor| actor.stop(now));
            self.sleep(POLL).await;
            self.observe().await?;
        }
        Ok(())
    }
}
