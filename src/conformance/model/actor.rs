//! A consumer of the model: the real runtime, whose handlers wait for the model's word.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering as Atomic},
    },
    time::Duration,
};

use futures_util::future::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Stores,
    facts::{Witness, number, row},
    plan::{Ordering, Setup, Store},
};
use crate::{
    Backoff, Builder, Consumer, ConsumerName, Delivery, Handler, HandlerError, Observation, Report, Result,
    Settings, Subscription,
    backend::{CheckpointBackend, StreamBackend, TransactionalCheckpoint},
    conformance::Effects,
    integrity::Gap,
    layer::{Fault, Faults, Layer, Operation},
};

/// How long a consumer counts as alive.
pub(super) const TTL: Duration = Duration::from_millis(300);

/// A handler that was called and waits for its verdict.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) who: usize,
    pub(super) delivery: Delivery,
    pub(super) verdict: oneshot::Sender<Result<(), HandlerError>>,
}

/// What an observer has seen that the model wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// Others may have claimed what it held, or the lease is gone.
    Lost,
    /// The lease was taken.
    Acquired,
    Gap(Gap),
}

/// One consumer.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) witness: Witness,
    pub(super) task: JoinHandle<Result<Report>>,
    stop: Option<oneshot::Sender<()>>,
    stream: Faults,
    checkpoints: Faults,
    /// Both are one, and so are their faults.
    fused: bool,
    /// Nothing goes wrong with its calls.
    sound: Cell<bool>,
    /// Some of its calls were late, or will be.
    late: Cell<bool>,
}

/// What all consumers report to.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) calls: mpsc::UnboundedSender<Call>,
    pub(super) notes: Arc<Mutex<Vec<(usize, u32, Note)>>>,
    /// The time between two resets, for notes.
    pub(super) era: Arc<AtomicU32>,
}

struct Gate {
    who: usize,
    desk: Desk,
}

impl Handler for Gate {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let (verdict, said) = oneshot::channel();
        let call = Call { who: self.who, delivery, verdict };
        self.desk.calls.send(call).map_err(|_| HandlerError::retry("the model has ended"))?;
        said.await.unwrap_or_else(|_| Err(HandlerError::retry("the model does not want it")))
    }
}

/// A consumer that is about to start.
pub(super) struct Launch {
    gate: Gate,
    setup: Setup,
    pub(super) stores: Stores,
    pub(super) subscription: Subscription,
    pub(super) stream: Faults,
    pub(super) checkpoints: Faults,
    stopped: oneshot::Receiver<()>,
}

impl Actor {
    /// Starts a consumer.
    pub(super) fn start(
        witness: Witness,
        setup: &Setup,
        stores: &Stores,
        subscription: &Subscription,
        desk: &Desk,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let fused = stores.fused.as_ref().filter(|_| setup.fused);
        let stream = Faults::new();
        let checkpoints = if fused.is_some() { stream.clone() } else { Faults::new() };
        let launch = Launch {
            gate: Gate { who: witness.who, desk: desk.clone() },
            setup: setup.clone(),
            stores: stores.clone(),
            subscription: subscription.clone(),
            stream: stream.clone(),
            checkpoints: checkpoints.clone(),
            stopped,
        };
        let task = match (stores.transactional.as_ref().filter(|_| setup.transactional), fused) {
            (Some(store), _) => store.spawn(launch),
            (None, Some(backend)) => {
                let backend = stream.clone().wrap(Arc::clone(backend));
                launch.spawn(Consumer::fused(subscription.clone(), backend))
            }
            (None, None) => {
                let stream = stream.clone().wrap(Arc::clone(&stores.stream));
                let checkpoints = checkpoints.clone().wrap(Arc::clone(&stores.checkpoints));
                launch.spawn(Consumer::builder(subscription.clone(), stream, checkpoints))
            }
        };
        Self {
            witness,
            task,
            stop: Some(stop),
            stream,
            checkpoints,
            fused: fused.is_some(),
            sound: Cell::new(true),
            late: Cell::new(false),
        }
    }

    /// Lets it stop gracefully.
    pub(super) fn stop(&mut self) {
        self.stop = None;
    }

    /// The next call of this operation goes wrong.
    pub(super) fn fault(&self, operation: Operation, fault: Fault) {
        self.sound.set(false);
        self.late.set(self.late.get() || matches!(fault, Fault::Delay(_)));
        self.stream.next(operation, fault);
        if !self.fused {
            self.checkpoints.next(operation, fault);
        }
    }

    /// A store cannot be reached.
    pub(super) fn away(&self, store: Store) {
        self.sound.set(false);
        if store != Store::Checkpoints || self.fused {
            self.stream.all(Fault::Before);
        }
        if store != Store::Stream {
            self.checkpoints.all(Fault::Before);
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn back(&self) {
        self.stream.clear();
        self.checkpoints.clear();
        self.sound.set(true);
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.get()
    }

    /// Whether it can reach all stores.
    pub(super) fn is_sound(&self) -> bool {
        self.sound.get()
    }
}

impl Drop for Actor {
    /// Its future is dropped, as at a crash.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Launch {
    fn spawn<S: StreamBackend, C: CheckpointBackend>(
        self,
        builder: Builder<S, C>,
    ) -> JoinHandle<Result<Report>> {
        let consumer = self.build(builder);
        tokio::spawn(consumer.run(self.gate, async { drop(self.stopped.await) }))
    }

    /// The handler writes the number of the entry as a row.
    pub(super) fn spawn_transactional<S, C, E>(
        self,
        builder: Builder<S, C>,
        effects: Arc<E>,
    ) -> JoinHandle<Result<Report>>
    where
        S: StreamBackend,
        C: TransactionalCheckpoint,
        E: Effects<C::Tx>,
    {
        let consumer = self.build(builder);
        let (gate, table) = (Arc::new(self.gate), self.subscription.stream.to_string());
        let stopped = async { drop(self.stopped.await) };
        let running = consumer.run_transactional(
            move |tx, delivery| {
                let (gate, effects, table) = (Arc::clone(&gate), Arc::clone(&effects), table.clone());
                let row = number(delivery.fields()).map(row);
                async move {
                    gate.handle(delivery).await?;
                    let row = row.ok_or_else(|| HandlerError::retry("the entry has no number"))?;
                    effects.write(tx, &table, row).await.map_err(HandlerError::retry)
                }
                .boxed()
            },
            stopped,
        );
        tokio::spawn(running)
    }

    fn build<S: StreamBackend, C: CheckpointBackend>(&self, builder: Builder<S, C>) -> Consumer<S, C> {
        let (who, setup) = (self.gate.who, &self.setup);
        let name = ConsumerName::new(format!("c{who}")).expect("a valid name");
        let Desk { notes, era, .. } = self.gate.desk.clone();
        let observer = move |_: &Subscription, observation: &Observation<'_>| {
            let note = match observation {
                Observation::Lapsed | Observation::Lost(_) => Note::Lost,
                Observation::Acquired => Note::Acquired,
                Observation::Gap(gap) => Note::Gap(**gap),
                _ => return,
            };
            let era = era.load(Atomic::Relaxed);
            notes.lock().unwrap_or_else(PoisonError::into_inner).push((who, era, note));
        };
        let builder = builder.name(name).observer(observer).configure(|settings| configure(settings, setup));
        let builder = match setup.ordering {
            Ordering::Strict => builder,
            Ordering::Unordered => builder.concurrency(4),
            Ordering::Keyed => builder.keyed(4, |delivery| delivery.fields().get("k").cloned()),
        };
        builder.build().expect("the settings are valid")
    }
}

fn configure(settings: &mut Settings, setup: &Setup) {
    settings.ownership = setup.ownership;
    settings.checkpoint = setup.policy;
    (settings.on_gap, settings.on_reset) = (setup.on_gap, setup.on_reset);
    settings.attempts_max = u32::MAX;
    settings.crashes_max = u32::MAX;
    if setup.parks && setup.ordering == Ordering::Keyed {
        settings.parked_entries_max = 1_000;
    }
    settings.retry = short(1, 5);
    settings.reconnect = short(2, 20);
    settings.read_entries_max = 8;
    settings.in_flight_entries_max = 16;
    settings.window_entries_max = 40;
    settings.block = Duration::from_millis(40);
    settings.probe_interval = Duration::from_millis(100);
    settings.ttl = TTL;
    settings.claim_interval = Duration::from_millis(50);
    settings.claim_min_idle = Duration::from_millis(500);
    settings.drain_timeout = Duration::from_millis(200);
}

fn short(first: u64, max: u64) -> Backoff {
    Backoff { first: Duration::from_millis(first), max: Duration::from_millis(max), ..Backoff::default() }
}
