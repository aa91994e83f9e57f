//! Deliveries as a `Stream` that the caller polls and settles by hand.

use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use futures_util::{
    Stream,
    future::{BoxFuture, FutureExt},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    HandlerError, Ownership, Report,
    context::Context,
    lane::{Chunk, Desk, Lanes},
    machine::{Failure, Finished},
    queue::Order,
    run,
};
use crate::{Delivery, Epoch, Error, ErrorKind, Position, Result, backend::Settlement};

/// Deliveries that are settled by hand: from [`Consumer::into_stream`](crate::Consumer::into_stream).
///
/// It ends after an error, or after [`stop`](Self::stop). Dropping it stops the consumer in the background, gracefully.
///
/// # Cancel safety
///
/// Polling loses nothing: a delivery that was not taken stays in the stream.
#[derive(Debug)]
pub struct Deliveries {
    // Before the receiver: what is dropped with that while the consumer does not stop yet has failed.
    shutdown: Option<oneshot::Sender<()>>,
    receiver: mpsc::UnboundedReceiver<Unsettled>,
    consumer: Option<JoinHandle<Result<Report>>>,
}

/// A delivery that waits for its verdict.
///
/// Only [`settle`](Self::settle) settles it. Dropping it says nothing of the entry: it is delivered again after a backoff, and
/// that counts as an attempt.
#[must_use = "a delivery that is dropped is delivered again"]
pub struct Unsettled {
    delivery: Delivery,
    stake: Stake,
    /// Says that somebody has it, where its time is limited.
    taken: Option<oneshot::Sender<()>>,
    verdict: oneshot::Sender<Result<(), HandlerError>>,
}

impl Unsettled {
    /// The entry is handled. The checkpoint follows by its policy.
    pub fn settle(self) {
        self.say(Ok(()));
    }

    /// The entry could not be handled. Says whether it may come again.
    pub fn fail(self, error: impl Into<HandlerError>) {
        self.say(Err(error.into()));
    }

    /// What settles the entry in a transaction of your own, with the `settle_in` of a store. Once that transaction is known to
    /// be committed, call [`settle`](Self::settle); if it is not, [`fail`](Self::fail).
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) in an exclusive subscription with [`keyed`](crate::Builder::keyed) or
    /// [`concurrency`](crate::Builder::concurrency): its position moves in strict order.
    pub fn settlement(&self) -> Result<Settlement> {
        let Stake { context, epoch, position } = &self.stake;
        let Context { subscription, name, .. } = &**context;
        let each = Settlement::each(subscription.clone(), *epoch, name.clone(), vec![self.delivery.id()]);
        match (context.settings.ownership, position) {
            (Ownership::Shared, _) => Ok(each),
            (Ownership::Exclusive, Some(position)) => Ok(each.up_to(position.clone())),
            (Ownership::Exclusive, None) => Err(Error::invalid(
                "transactions of an exclusive subscription come in strict order: leave out `concurrency` and `keyed`",
            )),
        }
    }

    fn say(self, verdict: Result<(), HandlerError>) {
        if self.verdict.send(verdict).is_err() {
            tracing::debug!(id = %self.delivery.id(), "a verdict after the end: the entry is delivered again");
        }
    }
}

impl Deref for Unsettled {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl fmt::Debug for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unsettled").field(&self.delivery).finish()
    }
}

/// What a settlement is put together from, if it is asked for: most deliveries are settled without one.
struct Stake {
    context: Arc<Context>,
    epoch: Epoch,
    /// Exclusive, in strict order.
    position: Option<Position>,
}

/// Hands deliveries to the stream and waits for the verdict.
struct HandOver {
    context: Arc<Context>,
    strict: bool,
    sender: mpsc::UnboundedSender<Unsettled>,
}

impl HandOver {
    async fn hand_over(&self, delivery: Delivery, stake: Stake) -> Result<(), HandlerError> {
        let (verdict, said) = oneshot::channel();
        let limit = self.context.call_limit();
        // Its time begins when somebody has it. Without a limit nobody needs to know.
        let (taken, is_taken) = limit.limit.map(|_| oneshot::channel()).unzip();
        self.sender
            .send(Unsettled { delivery, stake, taken, verdict })
            .map_err(|_| HandlerError::retry("nobody takes deliveries any more"))?;
        let dropped = |_| HandlerError::retry("the delivery was dropped unsettled");
        if let Some(is_taken) = is_taken {
            is_taken.await.map_err(dropped)?;
        }
        limit.caught(async { said.await.map_err(dropped)? }).await
    }
}

impl Lanes for HandOver {
    fn settles(&self) -> bool {
        self.strict
    }

    // Lanes run side by side, so on several threads two that start together may send in either order. The channel is as long
    // as there are lanes.
    fn run(self: Arc<Self>, mut chunk: Chunk, desk: Arc<Desk>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let slot = chunk.slot;
            debug_assert_eq!(chunk.deliveries.len(), 1, "one delivery a chunk");
            self.context.lease.stands().await;
            if !desk.halted()
                && let Some(delivery) = chunk.deliveries.pop()
            {
                let context = Arc::clone(&self.context);
                let stake = Stake { context, epoch: chunk.epoch, position: chunk.position };
                match self.hand_over(delivery.clone(), stake).await {
                    Ok(()) => desk.put(Finished::done([&delivery])),
                    Err(error) => {
                        let failure = Failure::new(error, false);
                        let deliveries = vec![delivery];
                        desk.put(Finished::Failed { slot, deliveries, failure, rest: Vec::new() });
                    }
                }
            }
            desk.put(Finished::Idle { slot, rest: chunk.deliveries });
        })
    }
}

pub(super) fn start(context: Arc<Context>, order: Order) -> Deliveries {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (shutdown, stopped) = oneshot::channel::<()>();
    let order = match order {
        Order::Strict { .. } => Order::Strict { chunk_max: 1 },
        order => order,
    };
    let strict = matches!(order, Order::Strict { .. });
    let lanes = Arc::new(HandOver { context: Arc::clone(&context), strict, sender });
    let consumer = tokio::spawn(run::start(context, lanes, order, stopped.map(drop)));
    Deliveries { shutdown: Some(shutdown), receiver, consumer: Some(consumer) }
}

impl Deliveries {
    /// Stops gracefully: waits for verdicts of what is out, up to the drain timeout, saves the checkpoint, and reports.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::run`](crate::Consumer::run), unless the stream has yielded it already.
    ///
    /// # Cancel safety
    ///
    /// The consumer goes on stopping in the background; the report is lost.
    pub async fn stop(mut self) -> Result<Report> {
        drop(self.shutdown.take());
        // What nobody has taken is dropped and comes again.
        self.receiver.close();
        while self.receiver.try_recv().is_ok() {}
        match self.consumer.take() {
            Some(consumer) => joined(consumer.await),
            None => {
                Err(Error::new(ErrorKind::Closed, "the consumer has ended: its stream yielded the reason"))
            }
        }
    }
}

fn joined(result: Result<Result<Report>, tokio::task::JoinError>) -> Result<Report> {
    result.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "the consumer's task panicked: please report it")
            .with_source(error))
    })
}

impl Stream for Deliveries {
    type Item = Result<Unsettled>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(Some(mut delivery)) = self.receiver.poll_recv(cx) {
            if let Some(taken) = delivery.taken.take() {
                // A consumer that has ended does not wait for it.
                let _ = taken.send(());
            }
            return Poll::Ready(Some(Ok(delivery)));
        }
        let Some(consumer) = &mut self.consumer else { return Poll::Ready(None) };
        let Poll::Ready(result) = consumer.poll_unpin(cx) else { return Poll::Pending };
        self.consumer = None;
        match joined(result) {
            Ok(_) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}
