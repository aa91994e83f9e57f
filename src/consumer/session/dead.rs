//! Dead letters and attempts on their way to the stores.

use std::sync::Arc;

use futures_util::future::FutureExt;

use super::{End, Session};
use crate::{
    Attempts, Error, ErrorKind, Letter, Outcome, Result,
    backend::{BuryLetters, Claim, Claimed, Fate, LoadAttempts, NewLetter, NoteAttempts},
    consumer::{
        DeadLetters, Ownership,
        book::Note,
        burials::Burial,
        context::{Context, is_passing},
        entered::RUNNING,
        machine::Event,
        observer::Observation,
    },
};

/// Burials that have ended.
pub(super) struct BuryDone {
    burials: Vec<Burial>,
    result: Result<Vec<Fate>>,
}

/// A note that has ended.
pub(super) struct NoteDone {
    result: Result<()>,
}

/// What was claimed, and what is remembered of attempts at it.
pub(super) struct Claims {
    pub(super) claimed: Claimed,
    pub(super) recalled: Vec<Attempts>,
}

/// Claims, and asks what is remembered of attempts at what was claimed.
pub(super) async fn claim(context: &Context, request: &Claim) -> Result<Claims> {
    let claimed = context.stream.claim(request).await?;
    let ids: Vec<_> = claimed.entries.iter().map(|entry| entry.id).collect();
    if ids.is_empty() {
        return Ok(Claims { claimed, recalled: Vec::new() });
    }
    let load = LoadAttempts::of(context.subscription.clone(), ids);
    // Without an answer, what was claimed is pending for us and nobody has seen it.
    let recalled =
        context.store.attempts(&load).await.map_err(|error| error.with_outcome(Outcome::Unknown))?;
    Ok(Claims { claimed, recalled })
}

impl Session<'_> {
    pub(super) fn bury(&mut self, burials: Vec<Burial>) {
        let context = Arc::clone(self.context);
        self.burying = Some(
            async move {
                let result = write(&context, &burials).await;
                BuryDone { burials, result }
            }
            .boxed(),
        );
    }

    pub(super) fn on_buried(&mut self, done: BuryDone) -> Option<End> {
        let BuryDone { burials, result } = done;
        match result {
            Ok(fates) => {
                self.bury_failed = 0;
                for (Burial { delivery, doom, .. }, fate) in burials.iter().zip(&fates) {
                    match fate {
                        Fate::Buried => {
                            self.context.report(&Observation::DeadLettered { id: delivery.id(), doom });
                        }
                        Fate::NotHeld => {
                            self.context.report(&Observation::Refused { id: delivery.id() });
                        }
                        Fate::Full | Fate::Unparked => {}
                    }
                }
                self.feed(Event::Buried(fates));
                None
            }
            Err(error) => {
                self.bury_failed += 1;
                let (wait, end) = self.after(error, self.bury_failed);
                self.feed(Event::NotBuried(self.now() + wait));
                end
            }
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        let (context, epoch) = (Arc::clone(self.context), self.epoch());
        self.noting = Some(
            async move {
                let Note { set, clear } = note;
                let request = NoteAttempts::new(context.subscription.clone(), epoch, set, clear);
                NoteDone { result: context.store.note_attempts(&request).await }
            }
            .boxed(),
        );
    }

    pub(super) fn on_noted(&mut self, done: NoteDone) -> Option<End> {
        match done.result {
            Ok(()) => {
                self.note_failed = 0;
                self.feed(Event::Noted);
                None
            }
            Err(error) => {
                self.note_failed += 1;
                let (wait, end) = self.after(error, self.note_failed);
                self.feed(Event::NotNoted(self.now() + wait));
                end
            }
        }
    }

    /// The epoch that a shared consumer has learned last; an owner's is that of its session.
    fn epoch(&self) -> crate::Epoch {
        match self.context.settings.ownership {
            Ownership::Shared => self.context.epoch(),
            Ownership::Exclusive => self.epoch,
        }
    }

    /// How long to wait after an error, and whether it ends the session.
    fn after(&mut self, error: Error, failed: u32) -> (std::time::Duration, Option<End>) {
        let settings = &self.context.settings;
        match error.kind() {
            ErrorKind::Fenced | ErrorKind::Invalid if settings.ownership == Ownership::Exclusive => {
                (settings.reconnect.delay(failed), Some(End::Again(error)))
            }
            // The checkpoint was reset, or lost: the resume path learns its epoch.
            ErrorKind::Fenced => {
                self.context.resume.notify_one();
                (settings.reconnect.delay(failed), None)
            }
            _ if is_passing(&error) => (self.context.unavailable(&error, failed), None),
            _ => {
                let wait = settings.drain_timeout;
                self.fail(error);
                (wait, None)
            }
        }
    }

    /// The last word: the process did not die of what it leaves behind, and it ends in order.
    pub(super) async fn farewell(&mut self) {
        let Note { set, mut clear } = self.machine.farewell().unwrap_or_default();
        if self.context.settings.ownership == Ownership::Exclusive {
            clear.push(RUNNING);
        }
        if set.is_empty() && clear.is_empty() {
            return;
        }
        let request = NoteAttempts::new(self.context.subscription.clone(), self.epoch(), set, clear);
        let noting = self.context.store.note_attempts(&request);
        let limit = self.context.clock.sleep(self.left());
        tokio::select! {
            biased;
            noted = noting => if let Err(error) = noted {
                tracing::info!(%error, "what comes next is started with care, as after a crash");
            },
            () = limit => tracing::info!("no answer in time: what comes next is started with care, as after a crash"),
        }
    }
}

/// Writes letters, and says what became of each.
async fn write(context: &Context, burials: &[Burial]) -> Result<Vec<Fate>> {
    let into = match &context.dead {
        DeadLetters::Stream(into) => into.clone(),
        DeadLetters::Sink(sink) => {
            let mut fates = Vec::with_capacity(burials.len());
            for burial in burials {
                match sink.put(letter(context, burial)).await {
                    Ok(()) => fates.push(Fate::Buried),
                    // Those before it are written.
                    Err(error) if fates.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            return Ok(fates);
        }
    };
    let shared = context.settings.ownership == Ownership::Shared;
    let letters = burials.iter().map(|burial| {
        let letter = letter(context, burial);
        let parked = burial.doom.reason == crate::DeathReason::Parked;
        NewLetter::new(letter.id, letter.to_fields(), letter.fields.len()).with_key(letter.key).parked(parked)
    });
    let request = BuryLetters::new(context.subscription.clone(), into, letters.collect())
        .held_by(shared.then(|| context.name.clone()))
        .parked_max(context.settings.parked_entries_max);
    context.stream.dead_letter(&request).await
}

fn letter(context: &Context, burial: &Burial) -> Letter {
    let Burial { delivery, key, doom, attempts } = burial;
    let now = context.clock.now();
    Letter {
        subscription: context.subscription.clone(),
        id: delivery.id(),
        fields: delivery.fields().clone(),
        reason: doom.reason,
        error: doom.error.clone(),
        attempts: attempts.failures,
        crashes: attempts.crashes,
        deliveries: delivery.deliveries,
        first_at: attempts.first_at.unwrap_or(now),
        last_at: now,
        consumer: context.name.clone(),
        key: key.filter(|_| context.settings.parked_entries_max > 0),
    }
}
