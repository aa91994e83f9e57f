//! What comes in: batches of the reader, and entries claimed from the dead.

use std::mem;

use super::{End, Session, dead::Claims};
use crate::{
    Attempts, EntryId, Error, ErrorKind, Outcome, Result,
    consumer::{
        context::is_passing,
        gone::Gone,
        ledger::Ledger,
        machine::Event,
        observer::Observation,
        reader::Batch,
        resume,
        settings::{OnGap, OnReset},
    },
    integrity::{Finding, Gap, Lost},
};

impl Session<'_> {
    pub(super) fn on_read(&mut self, result: Result<Batch>) -> Option<End> {
        let mut batch = match result {
            Ok(batch) => batch,
            Err(error) if error.kind() == ErrorKind::Fenced && !self.is_shared() => {
                return Some(End::Again(error));
            }
            Err(error)
                if error.kind() == ErrorKind::Reset && self.context.settings.on_reset != OnReset::Fail =>
            {
                return Some(End::Again(error));
            }
            Err(error) => {
                self.fail(error);
                return None;
            }
        };
        self.rereads &= batch.resumed.is_none() && !batch.anew;
        if self.rereads {
            self.took(Batch { deliveries: Vec::new(), ..batch });
            return None;
        }
        if batch.anew {
            // The same ids may stand for other entries now: settle nothing of what was held, and begin again.
            let message = "the checkpoint was reset or paused, or the stream created anew: what was held belongs to the one before";
            return Some(End::Again(Error::new(ErrorKind::Reset, message)));
        }
        // The last look found nothing wrong, so what was read before is of this life.
        self.incarnation = self.incarnation.take().or_else(|| self.context.incarnation());
        if batch.created {
            // What has not been started comes again, in order. Kept, it would be acked before the new group delivers it.
            self.feed(Event::Lapsed);
        }
        if let Some(position) = batch.resumed.take() {
            self.feed(Event::Resumed(position));
        }
        if let (Some(behind), Ledger::Exclusive { tracker, unsaved, .. }) =
            (batch.skip.take(), self.machine.ledger_mut())
        {
            tracker.skip(behind.watermark, behind.ordinal);
            // Saved like an entry, lest the next owner meets the gap again.
            *unsaved += 1;
        }
        if let Ledger::Exclusive { tracker, .. } = self.machine.ledger_mut() {
            tracker.identify(|| self.context.incarnation());
        }
        self.gone(mem::take(&mut batch.gone));
        self.recalled(mem::take(&mut batch.recalled));
        self.took(batch);
        None
    }

    fn took(&mut self, batch: Batch) {
        let Batch { deliveries, unasked, recovering, waits, .. } = batch;
        self.feed(if unasked { Event::Recovered(deliveries) } else { Event::Read(deliveries) });
        self.machine.ledger_mut().recovering(recovering);
        if waits {
            self.reading.taken();
        }
    }

    /// Pending entries left the stream: a gap, unless they are being handled or are known to be settled.
    fn gone(&mut self, gone: Gone) {
        let Gone { ids, settled } = gone;
        let is_lost = |id: &EntryId| !self.machine.ledger().knows(*id) && !settled.contains(id);
        let lost: Vec<_> = ids.iter().copied().filter(is_lost).collect();
        if let (Some(&first), Some(&last)) = (lost.first(), lost.last()) {
            let (after, count) = (first.prev().unwrap_or(EntryId::ZERO), lost.len() as u64);
            let trimmed =
                self.context.state().filter(|state| state.first_id.is_none_or(|first| first > last));
            let (before, lost) = match trimmed {
                // Nothing comes behind what ends it, so this tells how far it goes.
                Some(state) if self.context.settings.on_gap == OnGap::Fail => {
                    (state.first_id, Lost::AtLeast(count))
                }
                _ => (last.next(), Lost::Exactly(count)),
            };
            let finding = Finding::Gap(Gap::new(after, before, lost));
            if let Err(error) = resume::skips(self.context, &finding) {
                self.fail(error);
                return;
            }
        }
        if !ids.is_empty() {
            self.feed(Event::Gone(ids));
        }
    }

    fn recalled(&mut self, attempts: Vec<Attempts>) {
        if !attempts.is_empty() {
            self.feed(Event::Recalled(attempts));
        }
    }

    pub(super) fn on_claimed(&mut self, claims: Result<Claims>) {
        match claims {
            Ok(Claims { deliveries, gone, next, recalled }) => {
                self.recalled(recalled);
                // Go on at once while there is more, from the start after a while.
                match next {
                    Some(next) => (self.claim_from, self.claim_at) = (next, self.now()),
                    None => self.claim_from = EntryId::ZERO,
                }
                if !deliveries.is_empty() {
                    self.report.claimed += deliveries.len() as u64;
                    self.context.report(&Observation::Claimed(deliveries.len() as u64));
                }
                self.gone(gone);
                self.feed(Event::Recovered(deliveries));
            }
            Err(error) if error.kind() == ErrorKind::Missing => self.context.resume.notify_one(),
            Err(error) if is_passing(&error) => {
                tracing::debug!(%error, "could not claim; will try again");
                if error.outcome() == Outcome::Unknown {
                    // What it may have claimed is pending for us, and nobody else will have it while we live.
                    self.context.resume.notify_one();
                }
            }
            Err(error) => self.fail(error),
        }
    }
}
