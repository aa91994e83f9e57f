//! What an operator does with the tools of the library: it seeks, skips, resets with a reason, and redrives.

use std::{collections::BTreeSet, time::Duration};

use highwater::{
    Delivery, EntryId, ErrorKind, HandlerError, LetterFilter, Letters, Operator, Position, Result, SeekTo,
    backend::StreamBackendExt, dead_letter_stream, integrity::Finding,
};

use super::{Verdict, World};
use crate::audit::{Intent, letters, number};

/// Why the operator acts.
const REASON: &str = "the simulation";

impl World {
    pub(super) fn operator(&self) -> Operator {
        Operator::new(self.place.subscription.clone(), self.server.clone(), self.server.clone())
    }

    /// The subscription goes on elsewhere, perhaps while somebody lives on it.
    pub(super) async fn seek(&mut self) -> Verdict {
        let (force, kind) = (self.random.bool(), self.random.u8(..5));
        let Some(id) = self.choose(|_, _| true) else { return Ok(()) };
        if kind == 2 {
            let ordinal = Some(self.audit().lock().ordinal(id));
            return self.reset_with_reason(Position::at(id).with_ordinal(ordinal), force).await;
        }
        let (to, expected) = match kind {
            0 => (SeekTo::Start, self.audit().lock().above(None)),
            1 => (SeekTo::End, BTreeSet::new()),
            _ => (SeekTo::Id(id), self.audit().lock().above(Some(id))),
        };
        self.audit().lock().note(format_args!("seek to {to:?}, forced: {force}"));
        let alive = self.audit().lock().anybody();
        let sought = self.operator().force(force).seek(to, REASON).await;
        if refused("seek", sought.map(drop), force, alive)? {
            return Ok(());
        }
        let audit = self.audit().lock();
        let wanted = audit.above(audit.position().map(|position| position.watermark));
        if wanted != expected {
            return Err(format!("a seek to {to:?} brings {wanted:?}, and not {expected:?}"));
        }
        Ok(())
    }

    async fn reset_with_reason(&mut self, position: Position, force: bool) -> Verdict {
        self.audit().lock().note(format_args!("reset to {}, forced: {force}", position.watermark));
        let (alive, watermark) = (self.audit().lock().anybody(), position.watermark);
        let reset = self.operator().force(force).reset(position, REASON).await;
        if refused("reset", reset.map(drop), force, alive)? {
            return Ok(());
        }
        let status = self.operator().status().await.map_err(|error| format!("typed: {error:?}"))?;
        let stored = status.checkpoint.map(|stored| (stored.position.watermark, stored.reason));
        if stored != Some((watermark, Some(REASON.to_owned()))) {
            return Err(format!("a reset to {watermark} leaves {stored:?}"));
        }
        Ok(())
    }

    /// The next entry is skipped, or another one is refused.
    pub(super) async fn skip(&mut self) -> Verdict {
        let force = self.random.bool();
        let other = self.choose(|_, _| true).filter(|_| self.random.u8(..4) == 0);
        let next = {
            let audit = self.audit().lock();
            if audit.stale { None } else { audit.next_to_settle() }
        };
        let Some(id) = other.or(next) else { return Ok(()) };
        let before = self.audit().lock().position().cloned();
        let alive = {
            let mut audit = self.audit().lock();
            audit.note(format_args!("skip of {id}, next is {next:?}, forced: {force}"));
            audit.intent = Intent::Skip(id);
            audit.anybody()
        };
        let skipped = self.operator().force(force).skip(id, REASON).await;
        self.audit().lock().intent = Intent::Reset;
        match skipped {
            // Without a checkpoint there is nothing to move.
            Err(error) if error.kind() == ErrorKind::Missing && before.is_none() => Ok(()),
            Err(error) if error.kind() == ErrorKind::Fenced && Some(id) != next => Ok(()),
            Err(error) if error.kind() == ErrorKind::Gap => {
                if let Some(Finding::Gap(gap)) = error.finding() {
                    self.audit().lock().expect_gap(gap.lost.count());
                }
                Ok(())
            }
            Ok(_) if Some(id) != next => Err(format!("{id} was skipped, and {next:?} is the next")),
            other => refused("skip", other.map(drop), force, alive).map(drop),
        }
    }

    /// Dead letters come back: into the stream, or straight to a handler.
    pub(super) async fn redrive(&mut self) {
        if self.audit().lock().stale {
            return;
        }
        if self.random.bool() {
            return self.handle_letters().await;
        }
        let redriven = self.letters().redrive(&LetterFilter::default()).await;
        redriven.expect("the operator's stores answer");
        let state = self.server.state(&self.place.subscription.stream).await;
        let last = state.expect("the operator's stores answer").map_or(EntryId::ZERO, |state| state.last_id);
        self.next = self.next.max(last.next().expect("the ids are small"));
    }

    /// All of them, straight to a handler.
    pub(super) async fn handle_letters(&mut self) {
        let (audit, clock) = (self.audit().clone(), self.clock.clone());
        let handler = move |delivery: Delivery| {
            let (audit, clock) = (audit.clone(), clock.clone());
            async move {
                audit.lock().by_hand(number(&delivery).unwrap_or_default(), delivery.id());
                clock.sleep(Duration::from_millis(1)).await;
                Ok::<_, HandlerError>(())
            }
        };
        let handled = self.letters().redrive_to(&LetterFilter::default(), &handler).await;
        handled.expect("the operator's stores answer");
    }

    fn letters(&self) -> Letters {
        Letters::new(self.place.subscription.clone(), self.server.clone()).expect("a short name")
    }

    /// Shows the auditor what lies among the dead letters.
    pub(super) async fn count_letters(&self) {
        let from = dead_letter_stream(&self.place.subscription).expect("a short name");
        let lying = self.server.entries_after(&from, EntryId::ZERO, usize::MAX).await;
        let lying = lying.expect("the operator's stores answer");
        let lying: Vec<_> = lying.iter().filter_map(|entry| letters::entry_of(&entry.fields)).collect();
        self.audit().lock().lie(&lying);
    }
}

/// Whether an operation was refused since somebody lives there, which is well unless it was forced.
fn refused(what: &str, result: Result<()>, force: bool, alive: bool) -> Result<bool, String> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Busy && !force && alive => Ok(true),
        Err(error) => Err(format!("typed: a {what}, forced: {force}, anybody alive: {alive}: {error:?}")),
    }
}
