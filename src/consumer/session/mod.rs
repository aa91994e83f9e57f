//! The shell around the machine: one loop that turns the world into events and carries the actions out.

mod close;
mod dead;
mod finished;
mod intake;
mod saves;
mod start;
mod status;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, pending};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use self::{
    dead::{BuryDone, Claims, NoteDone},
    saves::SaveDone,
};
use super::{
    HandlerError,
    context::Context,
    entered::Entered,
    keeper::{self, News},
    lane::{Chunk, Desk, Lanes},
    ledger::{Held, Ledger, Save},
    machine::{Action, Event, Finished, Limits, Machine},
    observer::Observation,
    policy::SavePolicy,
    queue::{Order, Queue},
    reader::{Batch, Reader},
    reading::Reading,
    report::Report,
    settings::Ownership,
    tracker::Tracker,
};
use crate::{EntryId, Epoch, Error, ErrorKind, Incarnation, Result, clock};

/// How often a save also asks for the ordinal, at most.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// One time of being a consumer of the group, or the owner of the lease.
pub(crate) struct Session<'a> {
    context: &'a Arc<Context>,
    lanes: &'a Arc<dyn Lanes>,
    report: &'a mut Report,
    /// What is held belongs to this epoch. Another one ends the session.
    epoch: Epoch,
    /// The stream that it is of, once there is one.
    incarnation: Option<Incarnation>,
    machine: Machine,
    is_strict: bool,
    /// It ends, and nothing is started any more.
    over: bool,
    desk: Arc<Desk>,
    running: JoinSet<()>,
    keeper: JoinHandle<()>,
    news: mpsc::UnboundedReceiver<News>,
    reading: Reading,
    /// Shared: what was read ahead is pending, and comes again behind what was let go.
    rereads: bool,
    saving: Option<BoxFuture<'static, SaveDone>>,
    claiming: Option<BoxFuture<'static, Result<Claims>>>,
    burying: Option<BoxFuture<'static, BuryDone>>,
    bury_failed: u32,
    noting: Option<BoxFuture<'static, NoteDone>>,
    note_failed: u32,
    /// Where claims go on.
    claim_from: EntryId,
    claim_at: Duration,
    /// How often in a row there was no need to look for the dead.
    claims_spared: u32,
    /// The oldest pending entry at the last look, and at how many looks in a row it was, if we do not hold it.
    not_held: Option<(EntryId, u32)>,
    status_at: Duration,
    /// Whether the checkpoint lacks its ordinal, and when it is asked for next.
    count_open: bool,
    count_at: Duration,
    save_failed: u32,
    advanced_at: Duration,
    /// When a stop gives up waiting.
    deadline: Option<Duration>,
    failure: Option<Error>,
    drained: bool,
}

/// How a session ends.
pub(crate) enum End {
    Stopped,
    /// The lease is gone, or the position was reset: take it again.
    Again(Error),
    Failed(Error),
}

/// What woke the loop.
enum Woken {
    Stop,
    News(News),
    Saved(SaveDone),
    Read(Box<Result<Batch>>),
    Claimed(Result<Claims>),
    Buried(BuryDone),
    Noted(NoteDone),
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
        entered: Entered,
        report: &'a mut Report,
    ) -> Self {
        let settings = &context.settings;
        let position = entered.position.clone();
        let reader = Reader::new(Arc::clone(context), Arc::clone(lanes), &position);
        let ledger = match settings.ownership {
            Ownership::Shared => Ledger::Shared(Held::new(position)),
            Ownership::Exclusive => Ledger::Exclusive {
                tracker: Tracker::new(position),
                ahead_bytes_max: settings.ahead_bytes_max,
                unsaved: 0,
            },
        };
        let limits = Limits {
            read_entries_max: settings.read_entries_max.saturating_mul(settings.readers),
            in_flight_entries_max: settings.in_flight_entries_max,
            in_flight_bytes_max: settings.in_flight_bytes_max,
            window_entries_max: settings.window_entries_max,
            attempts_max: settings.attempts_max,
            crashes_max: settings.crashes_max,
            retry: settings.retry.clone(),
            retry_elapsed_max: settings.retry_elapsed_max,
            on_exhausted: settings.on_exhausted,
            notes_doom: context.notes_doom(),
            parks: settings.parked_entries_max > 0,
        };
        let began = context.clock.now().minus(context.clock.elapsed());
        let mut machine = Machine::new(
            limits,
            ledger,
            Queue::new(order.clone()),
            SavePolicy::new(settings.checkpoint),
            began,
        );
        entered.tell(&mut machine);
        let (sender, news) = mpsc::unbounded_channel();
        let now = context.clock.elapsed();
        Self {
            context,
            lanes,
            report,
            epoch: context.epoch(),
            incarnation: context.incarnation(),
            machine,
            is_strict: matches!(order, Order::Strict { .. }),
            over: false,
            desk: Arc::default(),
            running: JoinSet::new(),
            keeper: tokio::spawn(keeper::keep(Arc::clone(context), sender)),
            news,
            reading: Reading::start(reader),
            rereads: false,
            saving: None,
            claiming: None,
            burying: None,
            bury_failed: 0,
            noting: None,
            note_failed: 0,
            claim_from: EntryId::ZERO,
            // Many consumers of a process begin at once: what they do now and then is spread.
            claim_at: now + settings.claim_interval.mul_f64(clock::fraction()),
            claims_spared: 0,
            not_held: None,
            status_at: now + settings.probe_interval.mul_f64(clock::fraction()),
            // Whoever was here before may have acked and died before it advanced.
            count_open: settings.ownership == Ownership::Shared,
            count_at: now + COUNT_INTERVAL.mul_f64(clock::fraction()),
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
                read = self.reading.next(), if self.deadline.is_none() => Woken::Read(Box::new(read)),
                claimed = done(&mut self.claiming) => Woken::Claimed(claimed),
                buried = done(&mut self.burying) => Woken::Buried(buried),
                noted = done(&mut self.noting) => Woken::Noted(noted),
                finished = self.desk.take() => Woken::Finished(finished),
                () = clock.sleep_until(wake) => Woken::Time,
            };
            if let Some(end) = self.on(woken) {
                break self.unless_stopping(end);
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
                self.desk.halt(true);
                self.feed(Event::Lapsed);
                self.reread();
            }
            Woken::News(News::Lost(error)) if self.is_shared() => self.fail(error),
            Woken::News(News::Lost(error)) => return Some(End::Again(error)),
            Woken::Saved(saved) => return self.on_saved(saved),
            Woken::Read(read) => return self.on_read(*read),
            Woken::Claimed(claimed) => self.on_claimed(claimed),
            Woken::Buried(buried) => self.on_buried(buried),
            Woken::Noted(noted) => return self.on_noted(noted),
            Woken::Finished(finished) => return self.on_finished(finished),
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
            (after.skipped + after.known - before.skipped - before.known, Observation::Skipped),
            (after.settled - before.settled, Observation::Settled),
            (after.retried - before.retried, Observation::Retried),
        ] {
            if count > 0 {
                self.context.report(&observation(count));
            }
        }
        if after.lapsed > before.lapsed || after.refused > before.refused {
            // A resume, or a new group, that came before they were given back has passed over them.
            self.reread();
        }
        for action in actions {
            self.act(action);
        }
    }

    /// Takes the resume path, which brings all that is pending again, in its order.
    fn reread(&mut self) {
        self.rereads = self.is_shared();
        self.context.resume.notify_one();
    }

    fn act(&mut self, action: Action<HandlerError>) {
        match action {
            Action::Read { limit } => self.reading.ask(limit),
            Action::Start { slot, deliveries } => {
                self.desk.halt(false);
                let settles = self.lanes.settles();
                let position = settles.then(|| self.machine.ledger().position_after(&deliveries)).flatten();
                let chunk = Chunk { slot, deliveries, epoch: self.epoch, position };
                self.start(chunk);
            }
            Action::Save(save) => self.save(save),
            Action::Bury(burials) => self.bury(burials),
            Action::Note(note) => self.note(note),
            Action::Skipped { id, doom } => {
                self.context.report(&Observation::GivenUp { id, doom: &doom });
            }
            Action::Exhausted { id, attempts, error } => self.fail(
                Error::new(
                    ErrorKind::Handler,
                    "the handler cannot handle the entry, which is not settled: mend the handler and start again",
                )
                .with("id", id)
                .with("attempts", attempts)
                .with_source(error.into_source()),
            ),
            Action::Doomed { id, doom } => self.fail(
                Error::new(ErrorKind::Handler, "the entry was given up before, and is not settled: dead-letter it, or skip it")
                    .with("id", id)
                    .with("reason", doom.reason)
                    .with("error", doom.error),
            ),
            Action::Drained => self.drained = true,
        }
    }

    fn stop(&mut self) {
        if self.deadline.is_some() {
            return;
        }
        self.deadline = Some(self.now() + self.context.settings.drain_timeout);
        self.reading.stop();
        self.claiming = None;
        self.desk.halt(true);
        self.feed(Event::Stop);
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
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
            self.status_at = self.context.clock.together(now + clock::about(settings.probe_interval));
            self.context.report(&Observation::Status(self.status()));
            if self.count_open
                && now >= self.count_at.max(self.advanced_at + COUNT_INTERVAL)
                && self.saving.is_none()
                && self.machine.in_flight() == 0
                && self.deadline.is_none()
            {
                // Idle, and the checkpoint lacks its ordinal: an empty save completes it.
                self.save(Save::default());
            }
        }
        if now >= self.claim_at && self.is_shared() && self.claiming.is_none() && self.deadline.is_none() {
            self.look_for_the_dead();
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // The run was dropped: the lease must run out.
        self.keeper.abort();
    }
}
