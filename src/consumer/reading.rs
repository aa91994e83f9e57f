//! A reader that reads on while the session is at work on what it has brought.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use futures_util::future::BoxFuture;

use super::reader::{Batch, Reader};
use crate::Result;

/// The session's end of a reader. It is polled in the session's task: to wake another one costs more than a reader does, and
/// replies come in and requests go out in the driver's task anyway.
pub(crate) struct Reading {
    /// `None`: it was stopped, or has failed and said so.
    running: Option<BoxFuture<'static, ()>>,
    desk: Arc<ReadDesk>,
}

impl Reading {
    /// Begins, with nothing asked for.
    pub(crate) fn start(reader: Reader) -> Self {
        let desk = Arc::<ReadDesk>::default();
        let running: BoxFuture<'_, _> = Box::pin(reader.run(Arc::clone(&desk)));
        Self { running: Some(running), desk }
    }

    /// Asks for one more batch. It is read as soon as those before it are.
    pub(crate) fn ask(&self, limit: usize) {
        self.desk.lock().asked.push_back(limit);
    }

    /// The next batch. The next read is on its way by then, unless the reader waits. Dropping the wait loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Batch> {
        poll_fn(|context| {
            if let Some(running) = &mut self.running
                && running.as_mut().poll(context).is_ready()
            {
                self.running = None;
            }
            self.desk.lock().found.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The last batch, for which the reader waits, is taken: it may read on.
    pub(crate) fn taken(&self) {
        self.desk.lock().taken = true;
    }

    /// Reads no more. What a read under way may have taken is pending, and claimed by others.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }
}

/// Between a session and its reader. Nobody is woken: the session polls the reader after whatever it does.
#[derive(Debug, Default)]
pub(crate) struct ReadDesk(Mutex<Papers>);

#[derive(Debug, Default)]
struct Papers {
    asked: VecDeque<usize>,
    found: VecDeque<Result<Batch>>,
    taken: bool,
}

impl ReadDesk {
    /// How much is asked for, once it is.
    pub(super) async fn asked(&self) -> usize {
        poll_fn(|_| self.lock().asked.pop_front().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Hands over what was found.
    pub(super) fn put(&self, batch: Result<Batch>) {
        self.lock().found.push_back(batch);
    }

    /// Waits until the last batch is taken.
    pub(super) async fn taken(&self) {
        let taken = || std::mem::take(&mut self.lock().taken);
        poll_fn(|_| if taken() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
