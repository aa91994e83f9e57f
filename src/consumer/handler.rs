//! What a user gives to a consumer: a handler per entry or per batch, and its verdict.

use std::{error::Error as StdError, fmt, future::Future, time::Duration};

use crate::{
    DeathReason, Delivery, Doom,
    codec::{self, Decode},
};

/// Why a handler did not succeed, and whether it may be called again with the same entry.
///
/// Made from any error by `?` or `into`, which means "again, with backoff".
///
/// ```
/// use highwater::{Delivery, HandlerError};
///
/// async fn handle(delivery: Delivery) -> Result<(), HandlerError> {
///     // Without the field it fails for ever; a number that cannot be read, too.
///     let cents = delivery.fields().get("cents").ok_or("no field `cents`").map_err(HandlerError::reject)?;
///     let cents: u64 = std::str::from_utf8(cents)?.parse().map_err(HandlerError::reject)?;
///     println!("{cents}");
///     Ok(())
/// }
/// ```
pub struct HandlerError {
    source: Box<dyn StdError + Send + Sync>,
    verdict: Verdict,
    reason: DeathReason,
    index: Option<usize>,
}

/// What is to become of an entry that was not handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Again, after this wait or a backoff, up to the limit.
    Retry(Option<Duration>),
    /// Never again.
    Reject,
    /// The consumer is to stop.
    Stop,
}

impl HandlerError {
    /// Call again after a backoff, up to the limit.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(error, Verdict::Retry(None), DeathReason::Exhausted)
    }

    /// Call again at once, up to the limit.
    pub fn retry_now(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::retry_after(Duration::ZERO, error)
    }

    /// Call again after this wait, at most a day, up to the limit.
    pub fn retry_after(wait: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let wait = wait.min(Duration::from_hours(24));
        Self::new(error, Verdict::Retry(Some(wait)), DeathReason::Exhausted)
    }

    /// Never call again with this entry: it would fail the same way. What follows says
    /// [`on_exhausted`](crate::Settings::on_exhausted).
    pub fn reject(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = error.into();
        let undecodable = source.downcast_ref().is_some_and(codec::is_undecodable);
        let reason = if undecodable { DeathReason::Undecodable } else { DeathReason::Rejected };
        Self::new(source, Verdict::Reject, reason)
    }

    /// Stop the consumer, gracefully: nothing can be handled now. The entry is not settled, and this is no failure of it.
    pub fn stop(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(error, Verdict::Stop, DeathReason::Exhausted)
    }

    /// Of a batch: the entry at this index is at fault. Those before it are handled; in a transaction, all is rolled back and
    /// the failure counts for that entry alone.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    pub(crate) fn panicked(message: &str) -> Self {
        let error = format!("the handler panicked: {message}");
        Self::new(error, Verdict::Retry(None), DeathReason::Panicked)
    }

    pub(crate) fn timed_out(limit: Duration) -> Self {
        let error = format!("the handler took longer than {limit:?}");
        Self::new(error, Verdict::Retry(None), DeathReason::TimedOut)
    }

    fn new(error: impl Into<Box<dyn StdError + Send + Sync>>, verdict: Verdict, reason: DeathReason) -> Self {
        Self { source: error.into(), verdict, reason, index: None }
    }

    /// Whether the entry was rejected.
    #[must_use]
    pub fn is_reject(&self) -> bool {
        self.verdict == Verdict::Reject
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn index(&self) -> Option<usize> {
        self.index
    }

    /// What is written into a dead letter.
    pub(crate) fn doom(&self) -> Doom {
        let mut text = self.source.to_string();
        let mut source = self.source.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Doom::new(self.reason, text)
    }

    /// The handler's own error.
    #[must_use]
    pub fn into_source(self) -> Box<dyn StdError + Send + Sync> {
        self.source
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("source", &self.source).field("verdict", &self.verdict).finish()
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// Handles one delivery at a time.
///
/// Returning `Ok` settles the entry; nothing else does. An error or a panic calls the handler again after a backoff, up to
/// [`attempts_max`](crate::Settings::attempts_max) times in all, and then the entry is dead-lettered. Delivery is at least once, so a handler must bear to see an entry again:
/// [`Delivery::is_redelivery`] tells.
///
/// Every `Fn(Delivery) -> impl Future<Output = Result<(), E>>` is a handler:
///
/// ```
/// # use highwater::{Delivery, Handler};
/// fn check(_: &impl Handler) {}
/// check(&|delivery: Delivery| async move {
///     println!("{}: {:?}", delivery.id(), delivery.fields());
///     Ok::<_, std::io::Error>(())
/// });
/// ```
///
/// # Cancel safety
///
/// A handler that is still running at the deadline of a stop, or when an exclusive lease is lost, is dropped at its next
/// await. Its entry is not settled and is delivered again.
pub trait Handler: Send + Sync + 'static {
    /// Handles one delivery.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl<F, Fut, E> Handler for F
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<HandlerError>,
{
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        self(delivery).await.map_err(Into::into)
    }
}

/// A handler of values: decodes the payload of each entry with the codec `C`.
///
/// An entry that cannot be decoded is [rejected](HandlerError::reject): it would not decode the next time either.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use highwater::{Delivery, codec::Json, typed};
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     customer: String,
/// }
///
/// let handler = typed::<Json, _, _, _, _>(|order: Order, delivery: Delivery| async move {
///     println!("{}: {}", delivery.id(), order.customer);
///     Ok::<_, std::io::Error>(())
/// });
/// # fn check(_: impl highwater::Handler) {}
/// # check(handler);
/// # }
/// ```
pub fn typed<C, T, F, Fut, E>(handler: F) -> impl Handler
where
    C: Decode<T>,
    F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<HandlerError>,
{
    move |delivery: Delivery| {
        let handling = codec::decode::<T, C>(delivery.fields()).map(|value| handler(value, delivery));
        async move {
            match handling {
                Ok(handling) => handling.await.map_err(Into::into),
                Err(error) => Err(HandlerError::reject(error)),
            }
        }
    }
}

/// Handles several deliveries in one call, in order.
///
/// As [`Handler`], for the whole batch: `Ok` settles all of it, an error or a panic brings all of it again. Retries of a batch
/// come before anything behind it.
///
/// Every `Fn(Vec<Delivery>) -> impl Future<Output = Result<(), E>>` is a handler:
///
/// ```
/// # use highwater::{BatchHandler, Delivery};
/// fn check(_: &impl BatchHandler) {}
/// check(&|batch: Vec<Delivery>| async move {
///     println!("{} entries, the first is {}", batch.len(), batch[0].id());
///     Ok::<_, std::io::Error>(())
/// });
/// ```
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles a batch, which is never empty.
    fn handle_batch(&self, batch: Vec<Delivery>) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl<F, Fut, E> BatchHandler for F
where
    F: Fn(Vec<Delivery>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<HandlerError>,
{
    async fn handle_batch(&self, batch: Vec<Delivery>) -> Result<(), HandlerError> {
        self(batch).await.map_err(Into::into)
    }
}
