//! A reader in a task of its own, which reads on while the session is at work on what it has brought.

use std::{future::pending, sync::Arc};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::reader::{Batch, Reader};
use crate::Result;

/// The session's end of a reader that runs in a task of its own.
#[derive(Debug)]
pub(crate) struct Reading {
    task: JoinHandle<()>,
    asks: mpsc::UnboundedSender<usize>,
    batches: mpsc::UnboundedReceiver<Result<Batch>>,
    seen: Arc<Notify>,
}

impl Reading {
    /// Begins, with nothing asked for.
    pub(crate) fn start(reader: Reader) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let (found, batches) = mpsc::unbounded_channel();
        let seen = Arc::new(Notify::new());
        let task = tokio::spawn(reader.run(asked, found, Arc::clone(&seen)));
        Self { task, asks, batches, seen }
    }

    /// Asks for one more batch. It is read as soon as those before it are.
    pub(crate) fn ask(&self, limit: usize) {
        // Who has failed has said so, and reads no more.
        self.asks.send(limit).ok();
    }

    /// The next batch. Dropping the wait loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Batch> {
        match self.batches.recv().await {
            Some(batch) => batch,
            // It was stopped, or has failed and said so.
            None => pending().await,
        }
    }

    /// What the last batch has changed is known: what is pending may be read again.
    pub(crate) fn seen(&self) {
        self.seen.notify_one();
    }

    /// Reads no more. What a read under way may have taken is pending, and claimed by others.
    pub(crate) fn stop(&mut self) {
        self.task.abort();
    }

    /// Waits until it has stopped, which is when nothing can be taken any more.
    pub(crate) async fn stopped(&mut self) {
        self.stop();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop();
    }
}
