//! The save under way: what it carries, and what its result leads to.

use std::{sync::Arc, time::Duration};

use futures_util::future::FutureExt;

use super::{COUNT_INTERVAL, End, Session};
use crate::{
    Epoch, ErrorKind, Result, clock,
    consumer::{context::is_passing, ledger::Save, machine::Event, observer::Observation, settle::Saved},
};

/// A save that has ended.
pub(super) struct SaveDone {
    pub(super) save: Save,
    pub(super) result: Result<Saved>,
    latency: Duration,
    /// Whether it asked for the ordinal.
    count: bool,
    /// The epoch that it carried.
    epoch: Epoch,
}

impl Session<'_> {
    pub(super) fn save(&mut self, save: Save) {
        let (context, epoch) = (Arc::clone(self.context), self.epoch);
        let in_doubt = self.save_failed > 0 || context.is_in_doubt();
        let doubt = in_doubt.then(|| (epoch, self.incarnation.clone()));
        let count = self.is_shared() && self.now() >= self.count_at;
        self.saving = Some(
            async move {
                let asked = context.clock.elapsed();
                let saving = async {
                    if let Some(life) = &doubt {
                        context.settler.check(&context, life).await?;
                    }
                    context.settler.save(&context, epoch, &save, count).await
                };
                let result = saving.await;
                if matches!(result, Ok(Saved { watermark: Some(_), .. })) {
                    context.was_not_fenced(epoch, asked);
                }
                let latency = context.clock.elapsed().saturating_sub(asked);
                SaveDone { save, result, latency, count, epoch }
            }
            .boxed(),
        );
    }

    pub(super) fn on_saved(&mut self, done: SaveDone) -> Option<End> {
        let SaveDone { save, result, latency, count, epoch } = done;
        let now = self.now();
        match result {
            Ok(Saved { watermark: Some(watermark), late_acks }) => {
                self.save_failed = 0;
                self.advanced_at = now;
                self.report.watermark = Some(watermark);
                self.count_open = self.is_shared() && !count;
                if count {
                    // Soon enough that of one save a second each asks.
                    self.count_at = now + COUNT_INTERVAL.mul_f64(0.5 + 0.25 * clock::fraction());
                }
                self.context.report(&Observation::Advanced { watermark, latency, late_acks });
                // After a reset, what an older epoch had settled may be wanted again.
                let current = (epoch == self.context.epoch()).then_some(watermark);
                self.feed(Event::Saved(save, current));
            }
            Ok(Saved { watermark: None, .. }) => {
                // The group is gone. Keep what is handled, so that it is known when it comes again.
                self.context.resume.notify_one();
                self.not_saved(save, self.context.settings.reconnect.delay(self.save_failed + 1));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Invalid) => {
                if !self.is_shared() {
                    return Some(End::Again(error));
                }
                // The checkpoint was reset, or lost: the resume path learns its epoch.
                tracing::warn!(%error, "the checkpoint has another epoch");
                self.context.resume.notify_one();
                self.not_saved(save, self.context.settings.reconnect.delay(self.save_failed + 1));
            }
            Err(error) if is_passing(&error) => {
                let wait = self.context.unavailable(&error, self.save_failed + 1);
                self.not_saved(save, wait);
            }
            Err(error) => {
                self.not_saved(save, self.context.settings.drain_timeout);
                return Some(End::Failed(error));
            }
        }
        None
    }

    pub(super) fn not_saved(&mut self, save: Save, wait: Duration) {
        self.save_failed += 1;
        self.feed(Event::NotSaved(save, self.now() + wait));
    }
}
