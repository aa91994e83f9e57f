//! Where dead letters go.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::Settings;
use crate::{
    Error, Letter, Result, StreamName, Subscription,
    backend::{StreamBackend, StreamBackendExt},
};

/// Where the dead letters of a consumer go: see [`Builder::dead_letters`](crate::Builder::dead_letters).
#[derive(Clone)]
#[non_exhaustive]
pub enum DeadLetters {
    /// To this stream, on the server of the consumer's own stream, in one atomic step with the ack.
    Stream(StreamName),
    /// Wherever this puts them, and then the ack: after a crash between the two, a letter may come twice.
    Sink(Arc<dyn DeadLetterSink>),
}

impl DeadLetters {
    /// Wherever this puts them: a stream of another backend, by [`StreamSink`], or a function.
    ///
    /// ```
    /// use highwater::{DeadLetters, Letter};
    ///
    /// let letters = DeadLetters::sink(|letter: Letter| async move {
    ///     println!("{}: {}", letter.id, letter.error);
    ///     Ok(())
    /// });
    /// ```
    pub fn sink(sink: impl DeadLetterSink) -> Self {
        Self::Sink(Arc::new(sink))
    }

    pub(super) fn check(&self, subscription: &Subscription, settings: &Settings, keyed: bool) -> Result<()> {
        let stream = match self {
            Self::Stream(stream) => Some(stream),
            Self::Sink(_) => None,
        };
        if stream == Some(&subscription.stream) {
            let message = "the dead letters of a stream cannot go to the stream itself: name another one";
            return Err(Error::invalid(message).with("stream", &subscription.stream));
        }
        if settings.parked_entries_max > 0 && (!keyed || stream.is_none()) {
            let message = "`parked_entries_max` needs `keyed` order and a stream of dead letters beside the consumer's own";
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(stream) => f.debug_tuple("Stream").field(stream).finish(),
            Self::Sink(_) => f.debug_tuple("Sink").finish_non_exhaustive(),
        }
    }
}

/// Takes dead letters. Every `Fn(Letter) -> impl Future<Output = Result<()>>` does.
#[async_trait]
pub trait DeadLetterSink: Send + Sync + 'static {
    /// Takes a letter. The entry is acked when this has returned `Ok`, so the letter must be durable then.
    ///
    /// # Errors
    ///
    /// Nothing is acked. [`Unavailable`](crate::ErrorKind::Unavailable) comes again after a backoff; another kind ends the
    /// consumer.
    ///
    /// # Cancel safety
    ///
    /// The letter comes again, since nothing is acked.
    async fn put(&self, letter: Letter) -> Result<()>;
}

#[async_trait]
impl<F, Fut> DeadLetterSink for F
where
    F: Fn(Letter) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    async fn put(&self, letter: Letter) -> Result<()> {
        self(letter).await
    }
}

/// Appends dead letters to a stream of any backend.
#[derive(Debug)]
pub struct StreamSink<S> {
    backend: S,
    stream: StreamName,
}

impl<S: StreamBackend> StreamSink<S> {
    /// Appends to this stream.
    pub fn new(backend: S, stream: StreamName) -> Self {
        Self { backend, stream }
    }
}

#[async_trait]
impl<S: StreamBackend> DeadLetterSink for StreamSink<S> {
    async fn put(&self, letter: Letter) -> Result<()> {
        self.backend.append_one(&self.stream, letter.to_fields()).await.map(drop)
    }
}
