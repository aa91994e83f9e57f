//! Builds a consumer and starts it.

use std::{
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    sync::Arc,
};

use fnv::FnvHasher;

use super::{
    BatchHandler, CheckpointPolicy, DeadLetters, Deliveries, Handler, Observer, Ownership, Report, Settings,
    context::{Context, Parts},
    deliveries,
    lane::{PerBatch, PerEntry},
    observer::Reporter,
    queue::{KeyFn, Order},
    run,
    settle::Settler,
};
use crate::{
    ConsumerName, Delivery, Error, Result, Subscription,
    backend::{AtomicSettle, CheckpointBackend, StreamBackend},
    clock::Clock,
    dead_letter_stream,
};

/// Reads a subscription from a stream store `S` and keeps its checkpoint in a store `C`.
///
/// Made by [`Consumer::builder`] for two stores, or by [`Consumer::fused`] for one that is both and settles in one step.
/// Consumed in one of four ways: [`run`](Self::run) with a handler per entry, [`run_batches`](Self::run_batches) with
/// a handler per batch, [`into_stream`](Self::into_stream) with a `Stream` that is settled by hand, or
/// [`run_transactional`](Self::run_transactional) with a handler whose effects are committed together with the checkpoint.
///
/// ```
/// use highwater::{Consumer, Delivery, Fields, Memory, StreamName, Subscription, backend::*};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let memory = Memory::new();
/// let entry = NewEntry::new(Fields::from_iter([("kind", "order")]));
/// memory.append(&Append::new(StreamName::new("orders")?, vec![entry])).await?;
///
/// let (stop, stopped) = tokio::sync::oneshot::channel();
/// let stop = std::sync::Mutex::new(Some(stop));
/// let handler = move |delivery: Delivery| {
///     println!("{:?}", delivery.fields());
///     let stop = stop.lock().unwrap().take();
///     async move { stop.map_or(Ok(()), |stop| stop.send(())).map_err(|()| "nobody waits") }
/// };
/// let consumer = Consumer::fused(Subscription::new("orders", "billing")?, memory).build()?;
/// let report = consumer.run(handler, async { drop(stopped.await) }).await?;
/// assert_eq!(report.settled, 1);
/// # Ok::<(), highwater::Error>(()) }).unwrap();
/// ```
pub struct Consumer<S, C> {
    pub(super) context: Arc<Context>,
    pub(super) order: Order,
    pub(super) batch_entries_max: usize,
    /// The store once more, as the type that it is.
    pub(super) checkpoints: Arc<C>,
    stream: PhantomData<fn() -> S>,
}

impl<S: StreamBackend, C: CheckpointBackend> Consumer<S, C> {
    /// A consumer over two stores: ack, then advance. A crash between the two only redelivers.
    ///
    /// ```
    /// # use highwater::{Consumer, Memory, Subscription};
    /// let (stream, checkpoints) = (Memory::new(), Memory::new());
    /// let consumer = Consumer::builder(Subscription::new("orders", "billing")?, stream, checkpoints).exclusive().build()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn builder(subscription: Subscription, stream: S, checkpoints: C) -> Builder<S, C> {
        Builder::new(subscription, Arc::new(stream), Arc::new(checkpoints), Settler::TwoStep)
    }
}

impl<B: AtomicSettle> Consumer<Arc<B>, Arc<B>> {
    /// A consumer over one store that is both: ack and advance are one atomic step.
    ///
    /// To go on using the store, give it a clone, or an [`Arc`] of it.
    pub fn fused(subscription: Subscription, backend: B) -> Builder<Arc<B>, Arc<B>> {
        let backend = Arc::new(backend);
        let settler = Settler::Atomic(Arc::clone(&backend) as _);
        Builder::new(subscription, Arc::clone(&backend) as _, Arc::new(backend), settler)
    }
}

impl<S, C> fmt::Debug for Consumer<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("subscription", &self.context.subscription)
            .field("name", &self.context.name)
            .field("order", &self.order)
            .field("settings", &self.context.settings)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Consumer`].
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<S, C> {
    subscription: Subscription,
    stream: Arc<dyn StreamBackend>,
    checkpoints: Arc<C>,
    settler: Settler,
    dead: Option<DeadLetters>,
    name: Option<ConsumerName>,
    settings: Settings,
    lanes: usize,
    key: Option<KeyFn>,
    batch_entries_max: usize,
    observer: Option<Arc<dyn Observer>>,
    clock: Clock,
    backend: PhantomData<fn() -> S>,
}

impl<S, C: fmt::Debug> fmt::Debug for Builder<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("subscription", &self.subscription)
            .field("stream", &self.stream)
            .field("checkpoints", &self.checkpoints)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<S, C: CheckpointBackend> Builder<S, C> {
    fn new(
        subscription: Subscription,
        stream: Arc<dyn StreamBackend>,
        checkpoints: Arc<C>,
        settler: Settler,
    ) -> Self {
        Self {
            subscription,
            stream,
            checkpoints,
            settler,
            dead: None,
            name: None,
            settings: Settings::default(),
            lanes: 1,
            key: None,
            batch_entries_max: 100,
            observer: None,
            clock: Clock::new(),
            backend: PhantomData,
        }
    }

    /// Names the consumer. Default: [`ConsumerName::unique`].
    ///
    /// Two live processes under one name are refused with [`Busy`](crate::ErrorKind::Busy).
    pub fn name(mut self, name: ConsumerName) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets all limits and policies.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Changes some of the limits and policies.
    pub fn configure(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Any number of consumers compete. The default. See [`Ownership::Shared`].
    pub fn shared(mut self) -> Self {
        self.settings.ownership = Ownership::Shared;
        self
    }

    /// One owner at a time. See [`Ownership::Exclusive`].
    pub fn exclusive(mut self) -> Self {
        self.settings.ownership = Ownership::Exclusive;
        self
    }

    /// Calls so many handlers at once, in no order. An entry that fails holds back nothing. Default: 1, in strict order.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.lanes = handlers;
        self.key = None;
        self
    }

    /// Calls so many handlers at once, but for entries of one key one after the other, in the order of the stream. An entry
    /// that fails holds back its key only.
    ///
    /// ```
    /// # use highwater::{Consumer, Memory, Subscription};
    /// let memory = Memory::new();
    /// let consumer = Consumer::fused(Subscription::new("orders", "billing")?, memory)
    ///     .keyed(8, |delivery| delivery.fields().get("customer").cloned())
    ///     .build()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn keyed<K: Hash>(
        mut self,
        handlers: usize,
        key: impl Fn(&Delivery) -> K + Send + Sync + 'static,
    ) -> Self {
        self.lanes = handlers;
        self.key = Some(Arc::new(move |delivery| {
            // One whose hashes are the same in every process and release: dead letters are parked by them.
            let mut hasher = FnvHasher::default();
            key(delivery).hash(&mut hasher);
            hasher.finish()
        }));
        self
    }

    /// The most entries in one call of a [`BatchHandler`]. A batch is what is there, never waited for. Default: 100.
    pub fn batch_entries_max(mut self, entries: usize) -> Self {
        self.batch_entries_max = entries;
        self
    }

    /// Where entries go that are given up. Default: the stream [`dead_letter_stream`](crate::dead_letter_stream), beside the
    /// consumer's own.
    ///
    /// ```
    /// # use highwater::{Consumer, DeadLetters, Memory, Subscription};
    /// let consumer = Consumer::fused(Subscription::new("orders", "billing")?, Memory::new())
    ///     .dead_letters(DeadLetters::Stream("failed-orders".parse()?))
    ///     .build()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn dead_letters(mut self, dead: DeadLetters) -> Self {
        self.dead = Some(dead);
        self
    }

    /// Reports to this observer as well as to the log.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Takes time from this clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks all of it. Talks to no server yet.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) names the setting that is wrong.
    pub fn build(self) -> Result<Consumer<S, C>> {
        self.settings.validate()?;
        if self.lanes == 0 || self.batch_entries_max == 0 {
            return Err(Error::invalid("concurrency and batches need at least 1")
                .with("handlers", self.lanes)
                .with("batch_entries_max", self.batch_entries_max));
        }
        let dead = match self.dead {
            Some(dead) => dead,
            None => DeadLetters::Stream(dead_letter_stream(&self.subscription)?),
        };
        dead.check(&self.subscription, &self.settings, self.key.is_some())?;
        let order = match (self.key, self.lanes) {
            (Some(key), lanes) => Order::Keyed { lanes, key },
            (None, 1) => Order::strict(),
            (None, lanes) => Order::Unordered { lanes },
        };
        let settler = match self.settings.ownership {
            Ownership::Shared => self.settler,
            Ownership::Exclusive => Settler::Checkpoint,
        };
        let context = Context::new(Parts {
            name: self.name.unwrap_or_else(ConsumerName::unique),
            settings: self.settings,
            stream: self.stream,
            store: Arc::clone(&self.checkpoints) as _,
            settler,
            dead,
            clock: self.clock,
            reporter: Reporter { subscription: self.subscription.clone(), observer: self.observer },
            subscription: self.subscription,
        });
        Ok(Consumer {
            context: Arc::new(context),
            order,
            batch_entries_max: self.batch_entries_max,
            checkpoints: self.checkpoints,
            stream: PhantomData,
        })
    }
}

impl<S, C> Consumer<S, C> {
    /// The name of this consumer.
    #[must_use]
    pub fn name(&self) -> &ConsumerName {
        &self.context.name
    }

    /// What it consumes.
    #[must_use]
    pub fn subscription(&self) -> &Subscription {
        &self.context.subscription
    }

    /// Calls the handler with each delivery until `shutdown` resolves, then stops gracefully: reads nothing more, starts
    /// nothing more, lets running handlers finish within [`drain_timeout`](Settings::drain_timeout), saves the checkpoint,
    /// and says goodbye to the server.
    ///
    /// Outages are waited out. `shutdown` may be any future, whatever it yields: `tokio::signal::ctrl_c()`, or
    /// `token.cancelled_owned()` for a stop by token.
    ///
    /// # Errors
    ///
    /// What waiting does not mend: [`Handler`](crate::ErrorKind::Handler) for an entry that cannot be handled,
    /// [`Gap`](crate::ErrorKind::Gap) and [`Reset`](crate::ErrorKind::Reset) where the policy is to fail,
    /// [`Busy`](crate::ErrorKind::Busy) if another live process uses the name, [`Denied`](crate::ErrorKind::Denied),
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Invalid`](crate::ErrorKind::Invalid) and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) from a store. What was handled before is saved as far as it can be.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing: what is not in the checkpoint is delivered again. Others take over only when the time to
    /// live of this consumer has run out, so prefer `shutdown`.
    pub async fn run(self, handler: impl Handler, shutdown: impl Future + Send) -> Result<Report> {
        let order = match self.order {
            // One entry a save, so one entry a chunk.
            Order::Strict { .. } if self.context.settings.checkpoint == CheckpointPolicy::EveryAck => {
                Order::Strict { chunk_max: 1 }
            }
            order => order,
        };
        let limit = self.context.call_limit();
        run::start(self.context, Arc::new(PerEntry(handler, limit)), order, shutdown).await
    }

    /// As [`run`](Self::run), with a handler per batch, in strict order: one batch at a time, and a batch that fails comes
    /// again, as a whole, before anything behind it.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`Invalid`](crate::ErrorKind::Invalid) with [`keyed`](Builder::keyed) or
    /// [`concurrency`](Builder::concurrency), which are for handlers per entry.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn run_batches(
        self,
        handler: impl BatchHandler,
        shutdown: impl Future + Send,
    ) -> Result<Report> {
        if !matches!(self.order, Order::Strict { .. }) {
            return Err(Error::invalid("batches come in strict order: leave out `concurrency` and `keyed`"));
        }
        let order = Order::Strict { chunk_max: self.batch_entries_max };
        let limit = self.context.call_limit();
        run::start(self.context, Arc::new(PerBatch(handler, limit)), order, shutdown).await
    }

    /// Starts the consumer in a task of its own and yields what it delivers, to be settled by hand.
    ///
    /// In strict order, the default, the next entry comes when the one before is settled; with
    /// [`concurrency`](Builder::concurrency) so many are out at once, in no promised order; with
    /// [`keyed`](Builder::keyed) one of each key.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use highwater::{Consumer, Fields, Memory, Producer, Subscription};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let memory = Memory::new();
    /// Producer::new("orders".parse()?, memory.clone())?.append(Fields::from_iter([("kind", "order")])).await?;
    ///
    /// let mut deliveries = Consumer::fused(Subscription::new("orders", "billing")?, memory).build()?.into_stream();
    /// let delivery = deliveries.next().await.expect("it goes on until it is stopped")?;
    /// println!("{}: {:?}", delivery.id(), delivery.fields());
    /// delivery.settle();
    /// assert_eq!(deliveries.stop().await?.settled, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use = "the consumer stops when its stream is dropped"]
    pub fn into_stream(self) -> Deliveries {
        deliveries::start(self.context, self.order)
    }
}
