//! The shell around the machine: one loop that turns the world into events and carries the actions out.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt, pending};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use super::{
    HandlerError,
    context::{Context, is_passing},
    keeper::{self, News},
    lane::{Desk, Lanes},
    ledger::{Held, Ledger, Save},
    machine::{Action, Event, Finished, Limits, Machine},
    observer::{Observation, Status},
    policy::SavePolicy,
    queue::{Order, Queue},
    reader::{Batch, Reader},
    report::Report,
    resume,
    run::End,
    settings::{OnReset, Ownership},
    settle::Saved,
    tracker::Tracker,
};
use crate::{
    Delivery, EntryId, Epoch, Error, ErrorKind, Outcome, Position, Result,
    backend::{Claim, Claimed, PendingEntry},
    integrity::{Finding, Gap, Lost},
};

/// How often a save also asks for the ordinal, at most.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// A goodbye is worth a try, also when the deadline of the stop is over.
const GOODBYE_MIN: Duration = Duration::from_millis(100);

type Saving = BoxFuture<'static, (Save, Result<Saved>, Duration, bool)>;

/// One time of being a consumer of the group, or the owner of the lease.
pub(crate) struct Session<'a> {
    context: &'a Arc<Context>,
    lanes: &'a Arc<dyn Lanes>,
    report: &'a mut Report,
    /// What is held belongs to this epoch. Another one ends the session.
    epoch: Epoch,
    machine: Machine,
    desk: Arc<Desk>,
    running: JoinSet<()>,
    keeper: JoinHandle<()>,
    news: mpsc::UnboundedReceiver<News>,
    /// Here while it does not read.
    reader: Option<Reader>,
    reading: Option<BoxFuture<'static, (Reader, Result<Batch>)>>,
    saving: Option<Saving>,
    claiming: Option<BoxFuture<'static, Result<Claimed>>>,
    /// Where claims go on.
    claim_from: EntryId,
    claim_at: Duration,
    status_at: Duration,
    /// Whether the checkpoint lacks its ordinal, and when it was asked for last.
    count_open: bool,
    counted_at: Duration,
    save_failed: u32,
    advanced_at: Duration,
    /// When a stop gives up waiting.
    deadline: Option<Duration>,
    failure: Option<Error>,
    drained: bool,
}

/// What woke the loop.
enum Woken {
    Stop,
    News(News),
    Saved((Save, Result<Saved>, Duration, bool)),
    Read((Reader, Result<Batch>)),
    Claimed(Result<Claimed>),
    Resume,
    Finished(Vec<Finished<HandlerError>>),
    Time,
}

/// The result of a job, when there is one. Dropping the wait keeps the job.
async fn done<T>(job: &mut Option<BoxFuture<'static, T>>) -> T {
    match job {
        Some(running) => {
            let result = running.await;
            *job = None;
            result
        }
        None => pending().await,
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        context: &'a Arc<Context>,
        lanes: &'a Arc<dyn Lanes>,
        order: &Order,
        position: Position,
        report: &'a mut Report,
    ) -> Self {
        let settings = &context.settings;
        let reader = Reader::new(Arc::clone(context), &position);
        let ledger = match settings.ownership {
            Ownership::Shared => Ledger::Shared(Held::new(position)),
            Ownership::Exclusive => Ledger::Exclusive {
                tracker: Tracker::new(position),
                ahead_bytes_max: settings.ahead_bytes_max,
                unsaved: 0,
            },
        };
        let limits = Limits {
            read_entries_max: settings.read_entries_max,
            in_flight_entries_max: settings.in_flight_entries_max,
            in_flight_bytes_max: settings.in_flight_bytes_max,
            window_entries_max: settings.window_entries_max,
            attempts_max: settings.attempts_max,
            retry: settings.retry.clone(),
        };
        let machine =
            Machine::new(limits, ledger, Queue::new(order.clone()), SavePolicy::new(settings.checkpoint));
        let (sender, news) = mpsc::unbounded_channel();
        let now = context.clock.elapsed();
        Self {
            context,
            lanes,
            report,
            epoch: context.epoch(),
            machine,
            desk: Arc::default(),
            running: JoinSet::new(),
            keeper: tokio::spawn(keeper::keep(Arc::clone(context), sender)),
            news,
            reader: Some(reader),
            reading: None,
            saving: None,
            claiming: None,
            claim_from: EntryId::ZERO,
            claim_at: now,
            status_at: now + settings.probe_interval,
            count_open: false,
            counted_at: now,
            save_failed: 0,
            advanced_at: now,
            deadline: None,
            failure: None,
            drained: false,
        }
    }

    fn now(&self) -> Duration {
        self.context.clock.elapsed()
    }

    fn is_shared(&self) -> bool {
        self.context.settings.ownership == Ownership::Shared
    }

    /// Runs until it is stopped, fails, or is not the owner any more.
    pub(crate) async fn run(&mut self, mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>) -> End {
        self.feed(Event::Tick);
        let end = loop {
            let wake = self.wake();
            let clock = &self.context.clock;
            // What is rare comes first; what lanes report comes last, and never waits for long.
            let woken = tokio::select! {
                biased;
                () = shutdown.as_mut(), if self.deadline.is_none() => Woken::Stop,
                Some(news) = self.news.recv() => Woken::News(news),
                saved = done(&mut self.saving) => Woken::Saved(saved),
                read = done(&mut self.reading) => Woken::Read(read),
                claimed = done(&mut self.claiming) => Woken::Claimed(claimed),
                // While it reads, the reader takes the resume path by itself. It may have no room to read: what could make
                // room may wait for the very group that only the resume path creates again.
                () = self.context.resume.notified(), if self.reader.is_some() => Woken::Resume,
                finished = self.desk.take() => Woken::Finished(finished),
                () = clock.sleep_until(wake) => Woken::Time,
            };
            if let Some(end) = self.on(woken) {
                break end;
            }
            while self.running.try_join_next().is_some() {}
            if self.drained || self.deadline.is_some_and(|deadline| self.now() >= deadline) {
                break self.failure.take().map_or(End::Stopped, End::Failed);
            }
            self.housekeeping();
        };
        self.close(&end).await;
        end
    }

    fn on(&mut self, woken: Woken) -> Option<End> {
        match woken {
            Woken::Stop => self.stop(),
            Woken::News(News::Lapsed) => {
                self.context.report(&Observation::Lapsed);
                self.feed(Event::Lapsed);
                self.context.resume.notify_one();
            }
            Woken::News(News::Lost(error)) if self.is_shared() => self.fail(error),
            Woken::News(News::Lost(error)) => return Some(End::Again(error)),
            Woken::Saved(saved) => return self.on_saved(saved),
            Woken::Read((reader, result)) => {
                self.reader = Some(reader);
                return self.on_read(result);
            }
            Woken::Claimed(claimed) => self.on_claimed(claimed),
            Woken::Resume => {
                if let Some(reader) = &mut self.reader {
                    reader.resume();
                }
                self.act(Action::Read { limit: 1 });
            }
            Woken::Finished(finished) => self.on_finished(finished),
            Woken::Time => self.feed(Event::Tick),
        }
        None
    }

    fn feed(&mut self, event: Event<HandlerError>) {
        let before = self.machine.counts();
        let mut actions = Vec::new();
        self.machine.on(event, self.now(), &mut actions);
        let after = self.machine.counts();
        for (count, observation) in [
            (after.delivered - before.delivered, Observation::Delivered as fn(u64) -> Observation<'static>),
            (after.skipped - before.skipped, Observation::Skipped),
            (after.settled - before.settled, Observation::Settled),
            (after.retried - before.retried, Observation::Retried),
        ] {
            if count > 0 {
                self.context.report(&observation(count));
            }
        }
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action<HandlerError>) {
        match action {
            Action::Read { limit } => {
                let Some(mut reader) = self.reader.take() else { return };
                self.reading = Some(
                    async move {
                        let batch = reader.next(limit).await;
                        (reader, batch)
                    }
                    .boxed(),
                );
            }
            Action::Start { key, deliveries } => {
                self.running.spawn(Arc::clone(self.lanes).run(key, deliveries, Arc::clone(&self.desk)));
            }
            Action::Save(save) => self.save(save),
            Action::Exhausted { id, attempts, error } => self.fail(
                Error::new(
                    ErrorKind::Handler,
                    "the handler cannot handle the entry, which is not settled: mend the handler and start again",
                )
                .with("id", id)
                .with("attempts", attempts)
                .with_source(error.into_source()),
            ),
            Action::Drained => self.drained = true,
        }
    }

    fn save(&mut self, save: Save) {
        let (context, epoch) = (Arc::clone(self.context), self.epoch);
        let count = self.is_shared() && self.now().saturating_sub(self.counted_at) >= COUNT_INTERVAL;
        self.saving = Some(
            async move {
                let asked = context.clock.elapsed();
                let saved = context.settler.save(&context, epoch, &save, count).await;
                (save, saved, context.clock.elapsed().saturating_sub(asked), count)
            }
            .boxed(),
        );
    }

    fn on_saved(
        &mut self,
        (save, saved, latency, count): (Save, Result<Saved>, Duration, bool),
    ) -> Option<End> {
        let now = self.now();
        match saved {
            Ok(Saved { watermark: Some(watermark), late_acks }) => {
                self.save_failed = 0;
                self.advanced_at = now;
                self.report.watermark = Some(watermark);
                self.count_open = self.is_shared() && !count;
                if count {
                    self.counted_at = now;
                }
                self.context.report(&Observation::Advanced { watermark, latency, late_acks });
                self.feed(Event::Saved(save));
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

    fn not_saved(&mut self, save: Save, wait: Duration) {
        self.save_failed += 1;
        self.feed(Event::NotSaved(save, self.now() + wait));
    }

    fn on_read(&mut self, result: Result<Batch>) -> Option<End> {
        let batch = match result {
            Ok(batch) => batch,
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
        if batch.anew {
            // The same ids may stand for other entries now: settle nothing of what was held, and begin again.
            let message = "the checkpoint was reset, or the stream created anew: what was held belongs to the one before";
            return Some(End::Again(Error::new(ErrorKind::Reset, message)));
        }
        if batch.created {
            // What has not been started comes again, in order. Kept, it would be acked before the new group delivers it.
            self.feed(Event::Lapsed);
        }
        if let Some(position) = batch.resumed {
            self.feed(Event::Resumed(position));
        }
        if let (Some(behind), Ledger::Exclusive { tracker, unsaved, .. }) =
            (batch.skip, self.machine.ledger_mut())
        {
            tracker.skip(behind.watermark, behind.ordinal);
            // Saved like an entry, lest the next owner meets the gap again.
            *unsaved += 1;
        }
        self.gone(batch.gone);
        self.feed(Event::Read(batch.deliveries));
        None
    }

    /// Pending entries left the stream: a gap, unless they are being handled or the checkpoint has them as settled.
    fn gone(&mut self, ids: Vec<EntryId>) {
        let lost: Vec<_> = ids.iter().copied().filter(|&id| !self.machine.ledger().knows(id)).collect();
        if let (Some(&first), Some(&last)) = (lost.first(), lost.last()) {
            let after = first.prev().unwrap_or(EntryId::ZERO);
            let finding = Finding::Gap(Gap::new(after, last.next(), Lost::Exactly(lost.len() as u64)));
            if let Err(error) = resume::skips(self.context, &finding) {
                self.fail(error);
                return;
            }
        }
        if !ids.is_empty() {
            self.feed(Event::Gone(ids));
        }
    }

    fn on_claimed(&mut self, claimed: Result<Claimed>) {
        match claimed {
            Ok(claimed) => {
                // Go on at once while there is more, from the start after a while.
                match claimed.next {
                    Some(next) => (self.claim_from, self.claim_at) = (next, self.now()),
                    None => self.claim_from = EntryId::ZERO,
                }
                let (mut deliveries, mut gone) = (Vec::new(), Vec::new());
                for result in claimed.entries.into_iter().map(PendingEntry::into_delivery) {
                    match result {
                        Ok(delivery) => deliveries.push(delivery),
                        Err(id) => gone.push(id),
                    }
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

    fn on_finished(&mut self, finished: Vec<Finished<HandlerError>>) {
        for finished in &finished {
            if let Finished::Failed { deliveries, error, .. } = finished {
                let Some(Delivery { entry, attempt, .. }) = deliveries.first() else { continue };
                tracing::warn!(id = %entry.id, attempt, count = deliveries.len(), %error, "the handler failed");
            }
        }
        self.feed(Event::Finished(finished));
    }

    fn stop(&mut self) {
        if self.deadline.is_some() {
            return;
        }
        self.deadline = Some(self.now() + self.context.settings.drain_timeout);
        // A blocked read is dropped, which closes its connection. What it may have taken is pending, and claimed by others.
        self.reading = None;
        self.claiming = None;
        self.desk.halt();
        self.feed(Event::Stop);
    }

    fn fail(&mut self, error: Error) {
        if self.failure.is_none() {
            self.failure = Some(error);
        }
        self.stop();
    }

    fn wake(&self) -> Duration {
        let claims = self.is_shared() && self.claiming.is_none() && self.deadline.is_none();
        [self.machine.wake(), self.deadline, claims.then_some(self.claim_at), Some(self.status_at)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.status_at)
    }

    /// What is done by the clock.
    fn housekeeping(&mut self) {
        let now = self.now();
        let settings = &self.context.settings;
        if now >= self.status_at {
            self.status_at = now + settings.probe_interval;
            self.context.report(&Observation::Status(self.status()));
            if self.count_open
                && self.saving.is_none()
                && self.machine.in_flight() == 0
                && self.deadline.is_none()
            {
                // Idle, and the checkpoint lacks its ordinal: an empty save completes it.
                self.save(Save::default());
            }
        }
        if now >= self.claim_at && self.is_shared() && self.claiming.is_none() && self.deadline.is_none() {
            self.claim_at = now + settings.claim_interval;
            let limit = self.machine.room().min(settings.read_entries_max);
            if limit > 0 {
                let context = Arc::clone(self.context);
                let claim = Claim::new(
                    context.subscription.clone(),
                    context.name.clone(),
                    limit,
                    settings.claim_min_idle,
                )
                .from(self.claim_from);
                self.claiming = Some(async move { context.stream.claim(&claim).await }.boxed());
            }
        }
    }

    fn status(&self) -> Status {
        let state = self.context.state();
        let group = state.as_ref().and_then(|state| state.group.as_ref());
        let (read, oldest) = match self.machine.ledger() {
            Ledger::Exclusive { tracker, .. } => (tracker.read_ordinal(), tracker.first_unsettled()),
            Ledger::Shared(_) => {
                (group.and_then(|group| group.entries_read), group.and_then(|group| group.first_pending))
            }
        };
        let lag = state.as_ref().and_then(|state| state.entries_added?.checked_sub(read?));
        let in_flight = self.machine.in_flight();
        let held = group.map_or(in_flight as u64, |group| group.pending);
        Status {
            lag,
            backlog: lag.map(|lag| lag + held),
            in_flight,
            unsaved: self.machine.ledger().unsaved(),
            oldest_unsettled_age: oldest.map(|id| self.context.age(id)),
            checkpoint_age: self.now().saturating_sub(self.advanced_at),
            watermark: self.report.watermark.unwrap_or_default(),
        }
    }

    /// How long what comes last may take, within the deadline of the stop.
    fn left(&self) -> Duration {
        let left = self.deadline.map_or(keeper::GOODBYE_MAX, |deadline| deadline.saturating_sub(self.now()));
        left.min(keeper::GOODBYE_MAX)
    }

    /// Ends what is left and says goodbye.
    async fn close(&mut self, end: &End) {
        let counts = self.machine.counts();
        self.report.delivered += counts.delivered;
        self.report.settled += counts.settled;
        self.report.retried += counts.retried;
        self.report.skipped += counts.skipped;
        self.report.abandoned += counts.delivered - counts.settled - counts.lapsed;
        self.report.unsaved += self.machine.unsaved() as u64;
        self.running.abort_all();
        if self.count_open && self.drained {
            // The last word of a shared subscription: a checkpoint that can count what is lost while nobody reads.
            let nothing = Save::default();
            let saving = self.context.settler.save(self.context, self.epoch, &nothing, true);
            let limit = self.context.clock.sleep(self.left());
            tokio::select! {
                biased;
                saved = saving => if let Err(error) = saved {
                    tracing::info!(%error, "the last checkpoint has no ordinal");
                },
                () = limit => tracing::info!("no answer in time: the last checkpoint has no ordinal"),
            }
        }
        self.keeper.abort();
        if !matches!(end, End::Again(_)) {
            keeper::leave(self.context, self.left().max(GOODBYE_MIN)).await;
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // The run was dropped: the lease must run out.
        self.keeper.abort();
    }
}
