//! Deliveries as a `Stream` that the caller polls and settles by hand.

use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use futures_util::{Stream, future::FutureExt};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{Handler, HandlerError, Report, context::Context, lane::PerEntry, queue::Order, run};
use crate::{Delivery, Error, ErrorKind, Result};

/// Deliveries that are settled by hand: from [`Consumer::into_stream`](crate::Consumer::into_stream).
///
/// It ends after an error, or after [`stop`](Self::stop). Dropping it stops the consumer in the background, gracefully.
///
/// # Cancel safety
///
/// Polling loses nothing: a delivery that was not taken stays in the stream.
#[derive(Debug)]
pub struct Deliveries {
    receiver: mpsc::UnboundedReceiver<Unsettled>,
    shutdown: Option<oneshot::Sender<()>>,
    consumer: Option<JoinHandle<Result<Report>>>,
}

/// A delivery that waits for its verdict.
///
/// Only [`settle`](Self::settle) settles it. Dropping it says nothing of the entry: it is delivered again after a backoff, and
/// that counts as an attempt.
#[must_use = "a delivery that is dropped is delivered again"]
pub struct Unsettled {
    delivery: Delivery,
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

/// Hands deliveries to the stream and waits for the verdict.
struct HandOver(mpsc::UnboundedSender<Unsettled>);

impl Handler for HandOver {
    // Sent when the lane makes the call. Lanes run side by side, so on several threads two that start together may send in
    // either order. The channel is as long as there are lanes.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let (verdict, said) = oneshot::channel();
        let sent = self.0.send(Unsettled { delivery, verdict });
        async move {
            sent.map_err(|_| HandlerError::retry("nobody takes deliveries any more"))?;
            said.await.unwrap_or_else(|_| Err(HandlerError::retry("the delivery was dropped unsettled")))
        }
    }
}

pub(super) fn start(context: Arc<Context>, order: Order) -> Deliveries {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (shutdown, stopped) = oneshot::channel::<()>();
    let order = match order {
        Order::Strict { .. } => Order::Strict { chunk_max: 1 },
        order => order,
    };
    let lanes = Arc::new(PerEntry(HandOver(sender)));
    let consumer = tokio::spawn(run::start(context, lanes, order, stopped.map(drop)));
    Deliveries { receiver, shutdown: Some(shutdown), consumer: Some(consumer) }
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
        if let Poll::Ready(Some(delivery)) = self.receiver.poll_recv(cx) {
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
