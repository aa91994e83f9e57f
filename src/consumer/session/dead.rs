//! Dead letters and attempts on their way to the stores.

use std::{sync::Arc, time::Duration};

use futures_util::future::FutureExt;

use super::{End, Session, close::LAST_WORD_MIN};
use crate::{
    Attempts, Delivery, EntryId, Epoch, Error, ErrorKind, Letter, Outcome, Result,
    backend::{BuryLetters, Claim, Claimed, Fate, NewLetter, NoteAttempts, PendingEntry, ReadPending},
    clock,
    consumer::{
        DeadLetters, Ownership,
        book::Note,
        burials::Burial,
        context::{Context, is_passing},
        entered::RUNNING,
        gone::Gone,
        lane::Lanes,
        machine::Event,
        observer::Observation,
    },
};

/// So many looks for the dead are spared in a row at most where nothing is pending: one also removes the dead that left nothing.
const CLAIMS_SPARED_MAX: u32 = 10;

/// At this look an entry that is the oldest pending one, and not held, is looked for among what is pending for us.
const ASTRAY_AT: u32 = 3;

/// Burials that have ended.
pub(super) struct BuryDone {
    burials: Vec<Burial>,
    /// `None`: settled before, in a transaction.
    result: Result<Vec<Option<Fate>>>,
}

/// A note that has ended.
pub(super) struct NoteDone {
    result: Result<()>,
}

/// What was claimed, and what is remembered of attempts at it.
pub(super) struct Claims {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) gone: Gone,
    /// Where to go on, if there may be more.
    pub(super) next: Option<EntryId>,
    pub(super) recalled: Vec<Attempts>,
}

/// Claims, and asks what is remembered of attempts at what was claimed.
///
/// `astray` is the oldest pending entry, if it has been for a while and we do not hold it. It may be pending for us all the same:
/// a read that was dropped takes effect whenever the network delivers it, and then nobody else has what it took while we live.
async fn claim_from(
    context: &Context,
    lanes: &dyn Lanes,
    request: &Claim,
    astray: Option<EntryId>,
) -> Result<Claims> {
    if let Some(id) = astray {
        let after = id.prev().unwrap_or_default();
        let look = ReadPending::new(context.subscription.clone(), context.name.clone(), after, 1);
        if context.stream.read_pending(&look).await?.first().is_some_and(|entry| entry.id == id) {
            tracing::info!(%id, "a read that was dropped has taken effect: what is pending is read again");
            context.resume.notify_one();
        }
    }
    let Claimed { entries, next } = context.stream.claim(request).await?;
    let ids = entries.iter().map(|entry| entry.id).collect();
    let (mut deliveries, mut gone) = (Vec::new(), Vec::new());
    for result in entries.into_iter().map(PendingEntry::into_delivery) {
        match result {
            Ok(delivery) => deliveries.push(delivery),
            Err(id) => gone.push(id),
        }
    }
    // Without an answer, what was claimed is pending for us and nobody has seen it.
    let unseen = |error: Error| error.with_outcome(Outcome::Unknown);
    let gone = Gone::new(lanes, context.epoch(), gone).await.map_err(unseen)?;
    let recalled = context.recall(ids).await.map_err(unseen)?;
    Ok(Claims { deliveries, gone, next, recalled })
}

impl Session<'_> {
    /// Claims what the dead have left, or spares the look where nothing can be.
    pub(super) fn look_for_the_dead(&mut self) {
        let settings = &self.context.settings;
        let wait = settings.claim_interval.mul_f64(0.75 + 0.25 * clock::fraction());
        self.claim_at = self.context.clock.together(self.now() + wait);
        let limit = self.machine.room().min(settings.read_entries_max);
        let spared = self.claim_from == EntryId::ZERO
            && self.claims_spared < CLAIMS_SPARED_MAX
            && self.context.has_nothing_of_the_dead();
        self.claims_spared = if spared { self.claims_spared + 1 } else { 0 };
        if limit == 0 || spared {
            return;
        }
        let claim = Claim::new(
            self.context.subscription.clone(),
            self.context.name.clone(),
            limit,
            settings.claim_min_idle,
        )
        .from(self.claim_from)
        .unless_within(settings.claim_interval / 4);
        let (context, lanes, astray) = (Arc::clone(self.context), Arc::clone(self.lanes), self.astray());
        self.claiming = Some(async move { claim_from(&context, &*lanes, &claim, astray).await }.boxed());
    }

    /// The oldest pending entry, when it has been for some looks and we do not hold it.
    fn astray(&mut self) -> Option<EntryId> {
        let oldest = self.context.state()?.group?.first_pending;
        let oldest = oldest.filter(|&id| !self.machine.ledger().knows(id));
        let looks = |id| {
            self.not_held.filter(|(last, _)| *last == id).map_or(1, |(_, looks)| looks.saturating_add(1))
        };
        self.not_held = oldest.map(|id| (id, looks(id)));
        self.not_held.filter(|(_, looks)| *looks == ASTRAY_AT).map(|(id, _)| id)
    }

    pub(super) fn bury(&mut self, burials: Vec<Burial>) {
        let (context, lanes, epoch) = (Arc::clone(self.context), Arc::clone(self.lanes), self.epoch());
        self.burying = Some(
            async move {
                let result = unless_settled(&context, &*lanes, epoch, &burials).await;
                BuryDone { burials, result }
            }
            .boxed(),
        );
    }

    pub(super) fn on_buried(&mut self, done: BuryDone) {
        let BuryDone { burials, result } = done;
        match result {
            Ok(fates) => {
                self.bury_failed = 0;
                for (Burial { delivery, doom, .. }, fate) in burials.iter().zip(&fates) {
                    match fate {
                        Some(Fate::Buried) => {
                            self.context.report(&Observation::DeadLettered { id: delivery.id(), doom });
                        }
                        Some(Fate::NotHeld) => {
                            self.context.report(&Observation::Refused { id: delivery.id() });
                        }
                        Some(Fate::Full | Fate::Unparked) | None => {}
                    }
                }
                self.feed(Event::Buried(fates));
            }
            Err(error) => {
                self.bury_failed += 1;
                // A letter carries no epoch, so only a note is fenced.
                let wait = self.after(error, self.bury_failed);
                self.feed(Event::NotBuried(self.now() + wait));
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
                let reconnect = &self.context.settings.reconnect;
                let (wait, end) = match error.kind() {
                    ErrorKind::Fenced | ErrorKind::Invalid if !self.is_shared() => {
                        (reconnect.delay(self.note_failed), Some(End::Again(error)))
                    }
                    // The checkpoint was reset, or lost: the resume path learns its epoch.
                    ErrorKind::Fenced | ErrorKind::Invalid => {
                        self.context.resume.notify_one();
                        (reconnect.delay(self.note_failed), None)
                    }
                    _ => (self.after(error, self.note_failed), None),
                };
                self.over = end.is_some();
                self.feed(Event::NotNoted(self.now() + wait));
                end
            }
        }
    }

    /// The epoch that a shared consumer has learned last; an owner's is that of its session.
    fn epoch(&self) -> Epoch {
        match self.context.settings.ownership {
            Ownership::Shared => self.context.epoch(),
            Ownership::Exclusive => self.epoch,
        }
    }

    /// How long to wait after an error. One that waiting does not mend ends the consumer.
    fn after(&mut self, error: Error, failed: u32) -> Duration {
        if is_passing(&error) {
            return self.context.unavailable(&error, failed);
        }
        self.fail(error);
        self.context.settings.drain_timeout
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
        let limit = self.context.clock.sleep(self.left().max(LAST_WORD_MIN));
        tokio::select! {
            biased;
            noted = noting => if let Err(error) = noted {
                tracing::info!(%error, "what comes next is started with care, as after a crash");
            },
            () = limit => tracing::info!("no answer in time: what comes next is started with care, as after a crash"),
        }
    }
}

/// Writes letters of those that were not settled before. An entry whose effects are committed, and only its ack was lost, is not
/// dead.
async fn unless_settled(
    context: &Context,
    lanes: &dyn Lanes,
    epoch: Epoch,
    burials: &[Burial],
) -> Result<Vec<Option<Fate>>> {
    let again = burials.iter().map(|burial| &burial.delivery).filter(|delivery| delivery.is_redelivery());
    let ids: Vec<_> = again.map(Delivery::id).collect();
    let before = if ids.is_empty() { ids } else { lanes.settled(epoch, ids).await? };
    if before.is_empty() {
        return Ok(write(context, burials).await?.into_iter().map(Some).collect());
    }
    let is_before = |burial: &Burial| before.contains(&burial.delivery.id());
    let dead: Vec<_> = burials.iter().filter(|burial| !is_before(burial)).cloned().collect();
    let mut fates = if dead.is_empty() { Vec::new() } else { write(context, &dead).await? }.into_iter();
    // Up to the first of which nothing is known.
    Ok(burials
        .iter()
        .map_while(|burial| if is_before(burial) { Some(None) } else { fates.next().map(Some) })
        .collect())
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
