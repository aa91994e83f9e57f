//! What the handles of a producer send to its task, and the window that bounds it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::settings::ProducerSettings;
use crate::{EntryId, Error, ErrorKind, Outcome, Result, StreamName, backend::NewEntry};

pub(super) type Results = Vec<Result<EntryId>>;

/// Something for the task to do, in the order in which it was sent.
#[derive(Debug)]
pub(super) enum Command {
    Append(Job),
    /// Answer when everything before it was answered.
    Flush(oneshot::Sender<()>),
    /// Take nothing more, and end when everything was answered.
    Close,
}

/// Entries of one caller that go into one batch together, and within the limits of one.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) entries: Vec<NewEntry>,
    pub(super) bytes: usize,
    pub(super) waiting: Waiting,
}

/// Who waits for the results of a job. Dropped without an answer it says, to the caller, that nobody can tell.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entries: usize,
    pub(super) reply: oneshot::Sender<Results>,
    /// Held until the job was answered, also if the caller has gone: it is the memory that counts.
    pub(super) _place: Place,
}

/// A place in the window.
#[derive(Debug)]
pub(super) struct Place {
    _entries: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// How much may be queued or on its way, by count and by bytes.
#[derive(Debug)]
pub(super) struct Window {
    entries: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Window {
    pub(super) fn new(settings: &ProducerSettings) -> Self {
        Self {
            entries: Arc::new(Semaphore::new(settings.in_flight_entries_max)),
            bytes: Arc::new(Semaphore::new(settings.in_flight_bytes_max)),
        }
    }

    /// Waits for a place; `None` once the window is closed.
    ///
    /// Everybody asks for entries first and bytes second, and who holds both never waits for more: so nobody waits for
    /// somebody who waits for them. Both are fair, so that a large job is not overtaken for ever by small ones.
    pub(super) async fn enter(&self, entries: usize, bytes: usize) -> Option<Place> {
        let entries = self.entries.clone().acquire_many_owned(permits(entries)).await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(permits(bytes)).await.ok()?;
        Some(Place { _entries: entries, _bytes: bytes })
    }

    /// Turns away those who wait and those who come.
    pub(super) fn close(&self) {
        self.entries.close();
        self.bytes.close();
    }
}

/// The settings keep every window, and so every job, within what a semaphore counts.
fn permits(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Splits entries, whose sizes are within the limit of a payload, into jobs that each fit into a batch and into the window.
pub(super) fn split(entries: Vec<NewEntry>, settings: &ProducerSettings) -> Vec<(Vec<NewEntry>, usize)> {
    let entries_max = settings.batch_entries_max.min(settings.in_flight_entries_max);
    let mut jobs: Vec<(Vec<NewEntry>, usize)> = Vec::new();
    for entry in entries {
        let size = entry.fields.size();
        match jobs.last_mut() {
            Some((job, bytes)) if job.len() < entries_max && *bytes + size <= settings.batch_bytes_max => {
                job.push(entry);
                *bytes += size;
            }
            _ => jobs.push((vec![entry], size)),
        }
    }
    jobs
}

/// The producer was closed before anything was sent.
pub(super) fn closed(stream: &StreamName) -> Error {
    Error::new(ErrorKind::Closed, "the producer was closed: build a new one").with("stream", stream)
}

/// The task went away with the entry: its runtime was shut down, its drain took too long, or the backend panicked.
pub(super) fn lost(stream: &StreamName) -> Error {
    let message = "the producer ended, and nobody can tell what became of its entries: look into the stream";
    Error::new(ErrorKind::Closed, message).with("stream", stream).with_outcome(Outcome::Unknown)
}
