//! What follows when a consumer ends: was it right to, and who comes next.

use std::{mem, sync::PoisonError};

use super::World;
use crate::{
    EntryId, Error, ErrorKind, OnGap, Report,
    conformance::model::{
        actor::{Actor, Note},
        facts::{Verdict, Witness},
    },
    integrity::{Finding, Lost},
};

impl World {
    /// Takes in what observers have seen.
    pub(in crate::conformance::model) fn read_notes(&mut self) -> Verdict {
        let notes = mem::take(&mut *self.desk.notes.lock().unwrap_or_else(PoisonError::into_inner));
        for (who, then, note) in notes {
            if let Note::Gap(gap) = note {
                self.gaps.push(gap);
                self.expect_gap(gap.lost.count())?;
            }
            if note == Note::Lost {
                self.lost_at = Some(self.now());
            }
            let (era, life) = (self.facts.era, self.facts.life);
            let Some(actor) = self.actors.iter_mut().find(|actor| actor.witness.who == who) else { continue };
            match note {
                Note::Lost => {
                    actor.witness.forgiven = true;
                    self.suspects.retain(|(suspect, _)| *suspect != who);
                }
                // What it was granted before a reset is of the time before.
                Note::Acquired if then != era => {}
                Note::Acquired => {
                    let is_old = actor.witness.era != era;
                    (actor.witness.era, actor.witness.life, actor.witness.fenced) = (era, life, false);
                    if is_old {
                        actor.witness.settled.clear();
                        actor.witness.succeeded.clear();
                    }
                }
                Note::Gap(_) => {}
            }
        }
        Ok(())
    }

    fn expect_gap(&self, count: u64) -> Verdict {
        match (self.facts.may_gap, self.facts.trimmed, count) {
            (true, ..) | (_, true, 0) => Ok(()),
            _ => Err(format!("G7: a gap of {count} was reported, and nothing is missing")),
        }
    }

    /// A consumer has ended: every error is typed, and one that is a finding is true.
    pub(super) async fn ended(&mut self, mut actor: Actor) -> Verdict {
        self.out.retain(|(_, call)| call.who != actor.witness.who);
        let who = actor.witness.who;
        self.acquit(who);
        let result = (&mut actor.task).await.map_err(|error| format!("consumer {who} panicked: {error}"))?;
        match result {
            Ok(report) => {
                self.stopped(&actor.witness, &report);
                Ok(())
            }
            Err(error) => self.failed(&actor.witness, error).await,
        }
    }

    fn stopped(&mut self, witness: &Witness, report: &Report) {
        // A session that ended before the last one has dropped what its handlers had not reported yet.
        let dropped = witness.forgiven && report.abandoned > 0;
        if report.unsaved == 0 && witness.era == self.facts.era && report.leases_lost == 0 && !dropped {
            for n in &witness.succeeded {
                self.facts.fact(*n).done = true;
            }
        }
    }

    /// A supervisor starts another one, after the operator has decided.
    async fn failed(&mut self, witness: &Witness, error: Error) -> Verdict {
        match (error.kind(), error.finding()) {
            (ErrorKind::Gap, Some(Finding::Gap(gap))) => {
                let count = if gap.lost == Lost::AtLeast(0) { 0 } else { gap.lost.count().max(1) };
                self.expect_gap(count)?;
                self.gaps.push(*gap);
                self.setup.on_gap = OnGap::Skip;
            }
            (ErrorKind::Reset, Some(Finding::Reset(_))) => {
                // What it was granted may be from before the operator came.
                if self.facts.stale.is_none() && witness.era == self.facts.era {
                    return Err(format!(
                        "G8: the stream is the same, and consumer {} says {error}",
                        witness.who
                    ));
                }
                if self.facts.stale.is_some() {
                    self.set_checkpoint(EntryId::ZERO).await?;
                }
            }
            _ => return Err(format!("typed: consumer {} ended with {error:?}", witness.who)),
        }
        self.start();
        Ok(())
    }
}
