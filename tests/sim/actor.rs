//! A consumer of the simulation: the real runtime, over wires that fail, in a process that may be frozen or killed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::FutureExt;
use highwater::{
    Builder, Consumer, ConsumerName, Delivery, EntryId, HandlerError, Memory, Observation, Report, Result,
    Subscription,
    backend::{CheckpointBackend, StreamBackend, TransactionalCheckpoint},
    clock::{Clock, Freeze, Timestamp},
    layer::{Fault, Faults, Layer, Timeout},
    memory::Tx,
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    audit::{Audit, Ends, Part, number},
    mutants::Mutant,
    server::{Link, Server, Wire},
    setup::{LANES, Ordering, Setup, Style},
};

/// The longest that a call is late by chance.
const LATE_MAX: Duration = Duration::from_millis(40);
/// After this, nobody waits for an answer any more.
const TIMEOUT: Duration = Duration::from_millis(30);

/// All that consumers of one run share.
#[derive(Debug, Clone)]
pub struct Place {
    pub stream: Memory,
    pub store: Memory,
    pub subscription: Subscription,
    pub audit: Audit,
    pub mutant: Option<Mutant>,
    /// The share of writes that go on by themselves.
    pub late: f64,
    pub clock: Clock,
}

impl Place {
    /// The stores, for one who calls them.
    pub fn server(&self, who: usize) -> Server {
        let Self { stream, store, subscription, audit, mutant, late, clock } = self.clone();
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(who as u64)));
        let seen = Arc::new(Mutex::new(EntryId::ZERO));
        Server { stream, store, subscription, audit, who, mutant, seen, random, late, era: 0, clock }
    }
}

/// One consumer.
#[derive(Debug)]
pub struct Actor {
    pub who: usize,
    pub name: ConsumerName,
    pub task: JoinHandle<Result<Report>>,
    pub frozen: bool,
    /// Another process had its name before.
    pub renamed: bool,
    /// When it was asked to stop.
    pub stopping: Option<Duration>,
    stop: Option<oneshot::Sender<()>>,
    freeze: Freeze,
    /// By chance, and outages, of the stream and of the checkpoints.
    chance: [Faults; 2],
    outages: [Faults; 2],
}

/// A consumer that is about to start.
struct Launch {
    who: usize,
    name: ConsumerName,
    setup: Setup,
    audit: Audit,
    clock: Clock,
    freeze: Freeze,
    tail: bool,
    stopped: oneshot::Receiver<()>,
}

impl Actor {
    pub fn start(place: &Place, setup: &Setup, name: ConsumerName, random: &mut fastrand::Rng) -> Self {
        let who = place.audit.lock().started(&name);
        let freeze = Freeze::default();
        // Its wall clock may be hours off: nothing but ages may show it.
        let wall = Timestamp::from_millis(10_000_000 + random.u64(..20_000_000));
        let clock = Clock::at(wall).frozen_by(freeze.clone());
        let chance =
            [(); 2].map(|()| Faults::seeded(random.u64(..), setup.faults, LATE_MAX).clock(clock.clone()));
        let outages = [(); 2].map(|()| Faults::new().clock(clock.clone()));
        let server = place.server(who);
        let wire = |at: usize| -> Wire {
            let link = Link { audit: place.audit.clone(), who, freeze: freeze.clone() };
            let patience = Timeout::new(TIMEOUT).clock(clock.clone());
            link.wrap(patience.wrap(outages[at].clone().wrap(chance[at].clone().wrap(server.clone()))))
        };
        let (stop, stopped) = oneshot::channel();
        let tail = place.mutant == Some(Mutant::LostBatchTail);
        let (name, setup, audit) = (name, setup.clone(), place.audit.clone());
        let (clock, freeze) = (clock.clone(), freeze.clone());
        let launch =
            Launch { who, name: name.clone(), setup, audit, clock, freeze: freeze.clone(), tail, stopped };
        let subscription = place.subscription.clone();
        let task = if launch.setup.fused {
            launch.spawn(Consumer::fused(subscription, wire(0)))
        } else {
            launch.spawn(Consumer::builder(subscription, wire(0), wire(1)))
        };
        Self {
            who,
            name,
            task,
            frozen: false,
            renamed: false,
            stopping: None,
            stop: Some(stop),
            freeze,
            chance,
            outages,
        }
    }

    /// Lets it stop gracefully.
    pub fn stop(&mut self, now: Duration) {
        self.stop = None;
        self.stopping.get_or_insert(now);
    }

    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
        self.freeze.set(frozen);
    }

    /// The stream, or the checkpoints, cannot be reached, or nothing is ever heard from there.
    pub fn away(&self, at: usize, fault: Fault) {
        self.outages[at].all(fault);
    }

    /// Outages end.
    pub fn back(&self) {
        self.outages.iter().for_each(Faults::clear);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        self.back();
        self.chance.iter().for_each(Faults::clear);
        self.freeze(false);
    }

    /// Its process is killed.
    pub async fn kill(mut self) {
        self.task.abort();
        // It was killed, or ended a moment earlier.
        let _ = (&mut self.task).await.is_ok();
        // What it has spawned ends with it, when it is looked at next.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Launch {
    fn spawn<S: StreamBackend, C>(self, builder: Builder<S, C>) -> JoinHandle<Result<Report>>
    where
        C: CheckpointBackend + TransactionalCheckpoint<Tx = Tx>,
    {
        let consumer = self.build(builder);
        let hand = Arc::new(Hand {
            who: self.who,
            name: self.name,
            audit: self.audit,
            clock: self.clock,
            freeze: self.freeze,
            tail: self.tail,
        });
        let stopped = self.stopped.map(drop);
        match self.setup.style {
            Style::Entries => {
                let handler = move |delivery| {
                    let hand = Arc::clone(&hand);
                    async move { hand.handle(&[delivery]).await }
                };
                tokio::spawn(consumer.run(handler, stopped))
            }
            Style::Batches => {
                let handler = move |batch: Vec<Delivery>| {
                    let hand = Arc::clone(&hand);
                    async move { hand.handle(&batch).await }
                };
                tokio::spawn(consumer.run_batches(handler, stopped))
            }
            Style::Transactions => tokio::spawn(consumer.run_transactional(
                move |tx, delivery| {
                    let hand = Arc::clone(&hand);
                    async move { hand.write(tx, &[delivery]).await }.boxed()
                },
                stopped,
            )),
            Style::TransactionBatches => tokio::spawn(consumer.run_transactional_batches(
                move |tx, batch| {
                    let hand = Arc::clone(&hand);
                    async move { hand.write(tx, &batch).await }.boxed()
                },
                stopped,
            )),
        }
    }

    fn build<S: StreamBackend, C: CheckpointBackend>(&self, builder: Builder<S, C>) -> Consumer<S, C> {
        let (who, audit, setup) = (self.who, self.audit.clone(), &self.setup);
        let observer = move |_: &Subscription, observation: &Observation<'_>| {
            audit.lock().observed(who, observation);
        };
        let builder = builder.name(self.name.clone()).clock(self.clock.clone()).observer(observer);
        let builder = builder.configure(|settings| setup.configure(settings)).batch_entries_max(5);
        let builder = match setup.ordering {
            Ordering::Strict => builder,
            Ordering::Unordered => builder.concurrency(LANES),
            Ordering::Keyed => builder.keyed(LANES, |delivery| delivery.fields().get("k").cloned()),
        };
        builder.build().expect("the settings are valid")
    }
}

/// The user's handler.
struct Hand {
    who: usize,
    name: ConsumerName,
    audit: Audit,
    clock: Clock,
    freeze: Freeze,
    /// A mutant: the last of a batch is not handed over.
    tail: bool,
}

impl Hand {
    async fn handle(&self, batch: &[Delivery]) -> Result<(), HandlerError> {
        let batch = self.handed(batch);
        let (running, part) = self.audit.called(self.who, &self.name, batch);
        self.work(part).await;
        match part.ends {
            Ends::Well => {
                running.succeeds();
                Ok(())
            }
            Ends::Dying => self.die().await,
            Ends::Failing => {
                running.fails(false);
                Err(HandlerError::retry("the simulation says so"))
            }
            Ends::Rejecting => {
                running.fails(true);
                Err(HandlerError::reject("the simulation says so"))
            }
            Ends::Panicking => {
                running.fails(false);
                // Without the hook, which would print.
                std::panic::resume_unwind(Box::new("the simulation says so"))
            }
        }
    }

    /// As `handle`, with the number of each entry as a row.
    async fn write(&self, tx: &mut Tx, batch: &[Delivery]) -> Result<(), HandlerError> {
        let batch = self.handed(batch);
        let (running, part) = self.audit.called(self.who, &self.name, batch);
        for (n, id) in batch.iter().filter_map(|delivery| Some((number(delivery)?, delivery.id()))) {
            let (audit, who) = (self.audit.clone(), self.who);
            tx.effect(move || audit.lock().row(who, n, id));
        }
        self.work(part).await;
        match part.ends {
            Ends::Well => return Ok(()),
            Ends::Dying => return self.die().await,
            _ => {}
        }
        running.fails(part.ends == Ends::Rejecting);
        match part.ends {
            Ends::Rejecting => Err(HandlerError::reject("the simulation says so")),
            _ => Err(HandlerError::retry("the simulation says so")),
        }
    }

    /// Nothing more comes from this process.
    async fn die(&self) -> Result<(), HandlerError> {
        self.freeze.set(true);
        self.audit.lock().dies(self.who);
        std::future::pending().await
    }

    fn handed<'a>(&self, batch: &'a [Delivery]) -> &'a [Delivery] {
        if self.tail && batch.len() > 1 { &batch[..batch.len() - 1] } else { batch }
    }

    async fn work(&self, part: Part) {
        if part.takes.is_zero() {
            tokio::task::yield_now().await;
        } else {
            self.clock.sleep(part.takes).await;
        }
    }
}
