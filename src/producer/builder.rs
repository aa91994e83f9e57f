//! How a producer is put together.

use std::sync::Arc;

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

use super::{
    append::{self, Appender},
    handle::{Producer, Shared},
    queue::Window,
    retention::{TrimSignal, Trimmer},
    settings::{ProducerSettings, Retention},
    stats::Counters,
};
use crate::{
    Error, Result, StreamName,
    backend::{CheckpointBackend, StreamBackend},
    clock::Clock,
};

/// Puts a [`Producer`] together; from [`Producer::builder`].
#[derive(Debug)]
#[must_use = "nothing happens before `build`"]
pub struct ProducerBuilder<S> {
    stream: StreamName,
    backend: S,
    settings: ProducerSettings,
    protect: Vec<Arc<dyn CheckpointBackend>>,
    clock: Clock,
}

impl<S: StreamBackend> ProducerBuilder<S> {
    pub(super) fn new(stream: StreamName, backend: S) -> Self {
        let settings = ProducerSettings::default();
        Self { stream, backend, settings, protect: Vec::new(), clock: Clock::new() }
    }

    /// With these settings instead of the defaults.
    pub fn settings(mut self, settings: ProducerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Never trims an entry that a checkpoint in this store may still need, unless
    /// [`force_trim`](ProducerSettings::force_trim) is set. May be called several times, once a store.
    ///
    /// Each trim asks the store for the checkpoints of the stream, and keeps everything above the lowest watermark. While a
    /// store cannot answer, nothing is trimmed. A group without a checkpoint is not known, and not protected; a checkpoint
    /// that nobody advances any more holds the stream for ever, until it is removed.
    pub fn protect(mut self, checkpoints: Arc<dyn CheckpointBackend>) -> Self {
        self.protect.push(checkpoints);
        self
    }

    /// With this clock, which decides the age of entries, instead of a new one.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks the settings and starts the producer's task.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if a setting is, or outside of a tokio runtime.
    pub fn build(self) -> Result<Producer<S>> {
        self.settings.validate()?;
        let runtime = Handle::try_current().map_err(|source| {
            Error::invalid("a producer needs a tokio runtime: build it inside one").with_source(source)
        })?;

        let settings = Arc::new(self.settings);
        let backend = Arc::new(self.backend);
        let counters = Arc::new(Counters::default());
        let (commands, queue) = mpsc::unbounded_channel();
        let (closing, close_asked) = watch::channel(false);
        let (end, ended) = watch::channel(None);

        let (trim, trimmer) = if settings.retention == Retention::Forever {
            (None, None)
        } else {
            let (trim, signals) = TrimSignal::new(&settings);
            let trimmer = Trimmer {
                stream: self.stream.clone(),
                backend: Arc::clone(&backend),
                protect: self.protect,
                retention: settings.retention,
                force: settings.force_trim,
                clock: self.clock.clone(),
                counters: Arc::clone(&counters),
            };
            (Some(trim), Some((trimmer, signals)))
        };
        let appender = Appender {
            stream: self.stream.clone(),
            backend: Arc::clone(&backend),
            settings: Arc::clone(&settings),
            clock: self.clock,
            counters: Arc::clone(&counters),
            queue,
            carry: None,
            sending: 0,
            trim,
        };
        // The task holds no handle: when the last one is dropped, the queue ends and the task with it.
        runtime.spawn(append::run(appender, trimmer, close_asked, end));

        let window = Window::new(&settings);
        let stream = self.stream;
        Ok(Producer::from_shared(Shared {
            stream,
            backend,
            settings,
            counters,
            window,
            commands,
            closing,
            ended,
        }))
    }
}
