//! What follows when a consumer ends: was it right to, and who comes next.

use super::World;
use crate::{
    EntryId, Error, ErrorKind, OnGap, Report,
    conformance::model::{
        actor::Actor,
        facts::{Verdict, Witness},
    },
    integrity::{Finding, Lost},
};

impl World {
    /// A consumer has ended: every error is typed, and one that is a finding is true.
    pub(super) async fn ended(&mut self, mut actor: Actor) -> Verdict {
        self.out.retain(|(_, call)| call.who != actor.witness.who);
        let who = actor.witness.who;
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
        if report.unsaved == 0 && witness.era == self.facts.era && report.leases_lost == 0 {
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
