//! The handle of a producer.

use std::{fmt, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    append::GivenUp,
    builder::ProducerBuilder,
    queue::{self, Command, Job, Results, Waiting, Window},
    settings::ProducerSettings,
    stats::{Counters, ProducerStats, add},
};
use crate::{
    EntryId, Error, ErrorKind, Fields, Outcome, Result, Retry, StreamName,
    backend::{NewEntry, StreamBackend},
    codec::{self, Encode},
};

/// Appends entries to one stream.
///
/// Appends that run side by side share batches: while one batch is on its way, what comes gathers for the next. Entries
/// that one caller appends one after the other, or in one [`append_many`](Self::append_many), keep their order. Each entry
/// is tried once. An error of [`Outcome::Unknown`] leaves open whether the entry is in the stream, and is not repeated: that
/// could append it twice.
///
/// Cloning is cheap; the clones are one producer. When the last one is dropped, what is queued is still sent, as long as the
/// runtime lives; [`close`](Self::close) waits for it.
///
/// ```
/// use highwater::{ErrorKind, Fields, memory::Memory, producer::Producer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let producer = Producer::new("orders".parse()?, Memory::new())?;
/// let first = producer.append([("kind", "order")].into_iter().collect()).await?;
/// let second = producer.append([("kind", "refund")].into_iter().collect()).await?;
/// assert!(first < second);
///
/// let error = producer.append(Fields::default()).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct Producer<S> {
    shared: Arc<Shared<S>>,
}

pub(super) struct Shared<S> {
    pub(super) stream: StreamName,
    pub(super) backend: Arc<S>,
    pub(super) settings: Arc<ProducerSettings>,
    pub(super) counters: Arc<Counters>,
    pub(super) window: Window,
    /// Unbounded, because the window bounds it: whoever sends a job holds a place for it.
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// Set by a close, and gone with the last handle. It starts the clock of the drain, even while a batch is on its way
    /// and nobody reads the queue.
    pub(super) closing: watch::Sender<bool>,
    /// What the task left behind at its end.
    pub(super) ended: watch::Receiver<Option<GivenUp>>,
}

impl<S: StreamBackend> Producer<S> {
    /// A producer with the default settings: payloads up to 1 MB, entries kept for 24 hours. It trims without regard to
    /// checkpoints, since it knows of none: name their store to the [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) outside of a tokio runtime.
    pub fn new(stream: StreamName, backend: S) -> Result<Self> {
        Self::builder(stream, backend).build()
    }

    /// A producer with settings, or with checkpoints that its trims must spare.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use highwater::{memory::Memory, producer::{Producer, ProducerSettings, Retention}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let memory = Memory::new();
    /// let mut settings = ProducerSettings::default();
    /// settings.retention = Retention::Age(Duration::from_secs(3600));
    /// let producer = Producer::builder("orders".parse()?, memory.clone())
    ///     .settings(settings)
    ///     .protect(Arc::new(memory))
    ///     .build()?;
    /// # producer.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(stream: StreamName, backend: S) -> ProducerBuilder<S> {
        ProducerBuilder::new(stream, backend)
    }

    pub(super) fn from_shared(shared: Shared<S>) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The stream that it appends to.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        &self.shared.stream
    }

    /// The backend that it appends with. Closing the producer leaves it open.
    #[must_use]
    pub fn backend(&self) -> &S {
        &self.shared.backend
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &ProducerSettings {
        &self.shared.settings
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        self.shared.counters.snapshot()
    }

    /// Appends an entry and returns its id. Waits while too much is in flight.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) if the entry has no fields or is over the limit, [`Closed`](ErrorKind::Closed) after a
    /// close; both before anything was sent. Otherwise the error of the backend, with its outcome.
    ///
    /// # Cancel safety
    ///
    /// The entry may be appended or not, as a whole; other appends are not disturbed. Once it is queued it is sent, and a
    /// failure that nobody waits for is logged. Poll it or drop it: one that is kept without being polled may hold a place
    /// that others wait for.
    pub async fn append(&self, fields: Fields) -> Result<EntryId> {
        let size = self.check(&fields)?;
        let reply = self.submit(vec![NewEntry::new(fields)], size).await?;
        reply.await.ok().and_then(|mut results| results.pop()).unwrap_or_else(|| Err(self.lost()))
    }

    /// Appends entries, in their order, and returns an id or an error for each. Waits while too much is in flight.
    ///
    /// An entry that is refused or fails takes no other with it, before or behind. There may be entries of others in between.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), for each entry by itself. The outer error is [`Closed`](ErrorKind::Closed), and
    /// says that no entry was sent.
    ///
    /// # Cancel safety
    ///
    /// Some of the entries may be appended; of those that the backend takes, a prefix. Other appends are not disturbed.
    ///
    /// ```
    /// use highwater::{Fields, memory::Memory, producer::Producer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let producer = Producer::new("orders".parse()?, Memory::new())?;
    /// let good: Fields = [("kind", "order")].into_iter().collect();
    /// let results = producer.append_many(vec![good.clone(), Fields::default(), good]).await?;
    /// assert!(results[0].is_ok() && results[1].is_err() && results[2].is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn append_many(&self, entries: Vec<Fields>) -> Result<Vec<Result<EntryId>>> {
        let mut accepted = Vec::with_capacity(entries.len());
        let mut refused: Vec<Option<Error>> = Vec::with_capacity(entries.len());
        for fields in entries {
            refused.push(self.check(&fields).err());
            if refused.last().is_some_and(Option::is_none) {
                accepted.push(NewEntry::new(fields));
            }
        }

        let mut replies = Vec::new();
        for (job, bytes) in queue::split(accepted, &self.shared.settings) {
            let count = job.len();
            match self.submit(job, bytes).await {
                Ok(reply) => replies.push((count, Some(reply))),
                Err(closed) if replies.is_empty() => return Err(closed),
                Err(_) => replies.push((count, None)),
            }
        }
        let mut sent: Results = Vec::with_capacity(refused.len());
        for (count, reply) in replies {
            match reply {
                None => sent.extend((0..count).map(|_| Err(self.closed()))),
                Some(reply) => match reply.await {
                    Ok(results) => sent.extend(results),
                    Err(_) => sent.extend((0..count).map(|_| Err(self.lost()))),
                },
            }
        }
        let mut sent = sent.into_iter();
        let one_each = refused.into_iter().map(|refused| match refused {
            Some(error) => Err(error),
            None => sent.next().unwrap_or_else(|| Err(self.lost())),
        });
        Ok(one_each.collect())
    }

    /// Encodes a value and appends it in the field [`PAYLOAD_FIELD`](codec::PAYLOAD_FIELD).
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) if the value cannot be encoded, and those of [`append`](Self::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](Self::append).
    ///
    /// ```
    /// use highwater::{codec::Raw, memory::Memory, producer::Producer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let producer = Producer::new("orders".parse()?, Memory::new())?;
    /// producer.append_typed::<Raw, [u8]>(b"any bytes").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn append_typed<C: Encode<T>, T: ?Sized + Sync>(&self, value: &T) -> Result<EntryId> {
        self.append(codec::encode::<T, C>(value)?).await
    }

    /// Encodes a value as JSON and appends it in the field [`PAYLOAD_FIELD`](codec::PAYLOAD_FIELD).
    ///
    /// # Errors
    ///
    /// As [`append_typed`](Self::append_typed).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](Self::append).
    ///
    /// ```
    /// use highwater::{memory::Memory, producer::Producer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let producer = Producer::new("orders".parse()?, Memory::new())?;
    /// producer.append_json(&("order", 7)).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "json")]
    pub async fn append_json<T: serde::Serialize + ?Sized + Sync>(&self, value: &T) -> Result<EntryId> {
        self.append_typed::<codec::Json, T>(value).await
    }

    /// Waits until everything that was queued before has its answer, and cuts a linger short. Whether an entry was appended
    /// is the answer of its own append.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) after a close, or if the producer ends before.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it ends the wait and nothing else.
    ///
    /// ```
    /// use highwater::{memory::Memory, producer::Producer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let producer = Producer::new("orders".parse()?, Memory::new())?;
    /// let append = producer.append([("kind", "order")].into_iter().collect());
    /// let (appended, flushed) = tokio::join!(append, producer.flush());
    /// assert!(appended.is_ok() && flushed.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<()> {
        let (reply, flushed) = oneshot::channel();
        self.shared.commands.send(Command::Flush(reply)).map_err(|_| self.closed())?;
        flushed.await.map_err(|_| self.closed())
    }

    /// Takes no more entries, through any clone, sends what is queued, and waits for the answers and for a trim that is at
    /// work. The backend stays open. A second close waits as the first does.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) if that took longer than [`drain_max`](ProducerSettings::drain_max): entries
    /// were given up, each with its own answer. [`Closed`](ErrorKind::Closed) if the task of the producer is gone, with its
    /// runtime or through a panic of the backend.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the producer is closed and goes on draining; dropping it ends the wait alone.
    ///
    /// ```
    /// use highwater::{ErrorKind, memory::Memory, producer::Producer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let producer = Producer::new("orders".parse()?, Memory::new())?;
    /// producer.append([("kind", "order")].into_iter().collect()).await?;
    /// producer.close().await?;
    ///
    /// let error = producer.append([("kind", "late")].into_iter().collect()).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Closed);
    /// assert_eq!(producer.stats().appended, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self) -> Result<()> {
        self.shared.window.close();
        // Fails if it was closed before.
        let _ = self.shared.commands.send(Command::Close);
        self.shared.closing.send_replace(true);
        let mut ended = self.shared.ended.clone();
        let given_up = match ended.wait_for(Option::is_some).await {
            Ok(given_up) => given_up.unwrap_or_default(),
            Err(_) => return Err(self.lost()),
        };
        if given_up.unsent + given_up.unknown == 0 {
            return Ok(());
        }
        let outcome = if given_up.unknown > 0 { Outcome::Unknown } else { Outcome::NotApplied };
        let message =
            "the producer gave up entries at its close: the answer of each append says what became of it";
        Err(Error::new(ErrorKind::Unavailable, message)
            .with_retry(Retry::Never)
            .with_outcome(outcome)
            .with("stream", &self.shared.stream)
            .with("unsent", given_up.unsent)
            .with("unknown", given_up.unknown))
    }

    /// The size of an entry that may be sent.
    fn check(&self, fields: &Fields) -> Result<usize> {
        let (size, limit) = (fields.size(), self.shared.settings.payload_bytes_max);
        let refused = if fields.is_empty() {
            Error::invalid("an entry needs a field: add one")
        } else if size > limit {
            Error::invalid("the entry is too large: append a reference to it, or raise `payload_bytes_max`")
                .with("size", size)
                .with("limit", limit)
        } else {
            return Ok(size);
        };
        add(&self.shared.counters.refused, 1);
        Err(refused.with("stream", &self.shared.stream))
    }

    /// Waits for a place in the window and queues a job; both at once or neither.
    async fn submit(&self, entries: Vec<NewEntry>, bytes: usize) -> Result<oneshot::Receiver<Results>> {
        let count = entries.len();
        let refused = || {
            add(&self.shared.counters.refused, count as u64);
            self.closed()
        };
        let place = self.shared.window.enter(count, bytes).await.ok_or_else(refused)?;
        let (reply, results) = oneshot::channel();
        let waiting = Waiting { entries: count, reply, _place: place };
        let job = Job { entries, bytes, waiting };
        // The queue is closed after the window: who had a place before may still be too late, and is told so.
        self.shared.commands.send(Command::Append(job)).map_err(|_| refused())?;
        Ok(results)
    }

    fn closed(&self) -> Error {
        queue::closed(&self.shared.stream)
    }

    fn lost(&self) -> Error {
        queue::lost(&self.shared.stream)
    }
}

impl<S> Clone for Producer<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Producer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("stream", &self.shared.stream)
            .field("backend", &self.shared.backend)
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
