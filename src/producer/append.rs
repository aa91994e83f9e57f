//! The task of a producer: it gathers what is queued into batches and sends one at a time.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    queue::{self, Command, Job, Results, Waiting},
    retention::{TrimSignal, Trimmer},
    settings::ProducerSettings,
    stats::{Counters, add},
};
use crate::{
    EntryId, Error, ErrorKind, Outcome, Result, StreamName,
    backend::{Append, NewEntry, StreamBackend},
    clock::Clock,
};

/// What was given up when a drain took too long.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GivenUp {
    /// Entries that were never sent.
    pub(super) unsent: usize,
    /// Entries that were on their way.
    pub(super) unknown: usize,
}

/// Runs a producer to its end: until it was closed, or all its handles are gone, and the queue is empty.
///
/// Appends and trims share the task but not the wait: neither holds up the other.
pub(super) async fn run<S: StreamBackend>(
    mut appender: Appender<S>,
    trimmer: Option<(Trimmer<S>, mpsc::Receiver<u64>)>,
    mut closing: watch::Receiver<bool>,
    ended: watch::Sender<Option<GivenUp>>,
) {
    let (clock, drain_max) = (appender.clock.clone(), appender.settings.drain_max);
    let overdue = async {
        // An error says that all handles are gone, which is as good as a close.
        let _ = closing.wait_for(|closing| *closing).await;
        clock.sleep(drain_max).await;
    };
    let trim = async {
        if let Some((trimmer, signals)) = trimmer {
            trimmer.run(signals).await;
        }
    };
    let drained = tokio::select! {
        biased;
        _ = future::join(appender.run(), trim) => true,
        () = overdue => false,
    };
    let given_up = if drained { GivenUp::default() } else { appender.give_up() };
    ended.send_replace(Some(given_up));
}

#[derive(Debug)]
pub(super) struct Appender<S> {
    pub(super) stream: StreamName,
    pub(super) backend: Arc<S>,
    pub(super) settings: Arc<ProducerSettings>,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
    pub(super) queue: mpsc::UnboundedReceiver<Command>,
    /// What was taken from the queue and did not fit into the batch. It goes before everything in the queue.
    pub(super) carry: Option<Command>,
    /// How many entries are with the backend now.
    pub(super) sending: usize,
    /// Where to tell that there may be something to trim.
    pub(super) trim: Option<TrimSignal>,
}

/// What to do next.
enum Step {
    Send(Batch),
    Flushed(oneshot::Sender<()>),
}

#[derive(Default)]
struct Batch {
    entries: Vec<NewEntry>,
    bytes: usize,
    waiting: Vec<Waiting>,
}

impl Batch {
    fn fits(&self, job: &Job, settings: &ProducerSettings) -> bool {
        self.entries.len() + job.entries.len() <= settings.batch_entries_max
            && self.bytes + job.bytes <= settings.batch_bytes_max
    }

    fn push(&mut self, mut job: Job) {
        self.entries.append(&mut job.entries);
        self.bytes += job.bytes;
        self.waiting.push(job.waiting);
    }
}

impl<S: StreamBackend> Appender<S> {
    /// One batch at a time, so that the entries of a stream have the order of the queue also when a batch fails: the next
    /// one leaves only after the fate of this one is known, or known to be unknown.
    async fn run(&mut self) {
        while let Some(step) = self.next_step().await {
            match step {
                Step::Send(batch) => self.send(batch).await,
                Step::Flushed(reply) => drop(reply.send(())),
            }
            // A backend that never waits would keep the task from its trims, and the thread from everybody else.
            tokio::task::coop::consume_budget().await;
        }
        // The trimmer ends when it has done what it was told to.
        self.trim = None;
    }

    /// `None` at the end of the queue, which is after a close or when all handles are gone.
    async fn next_step(&mut self) -> Option<Step> {
        let mut batch = Batch::default();
        let mut send_at = None;
        loop {
            let command = match self.carry.take() {
                Some(command) => Some(command),
                None if batch.entries.is_empty() => self.queue.recv().await,
                None => {
                    let send_at = *send_at
                        .get_or_insert_with(|| self.clock.elapsed().saturating_add(self.settings.linger));
                    self.next_before(send_at).await
                }
            };
            match command {
                Some(Command::Append(job)) if batch.fits(&job, &self.settings) => batch.push(job),
                // It ends the batch, and comes next.
                Some(command) if !batch.entries.is_empty() => {
                    self.carry = Some(command);
                    return Some(Step::Send(batch));
                }
                Some(Command::Flush(reply)) => return Some(Step::Flushed(reply)),
                // What was queued before the queue was closed still comes out of it.
                Some(Command::Close) => self.queue.close(),
                // A job fits into an empty batch: that is how it was cut.
                Some(Command::Append(job)) => batch.push(job),
                None if batch.entries.is_empty() => return None,
                None => return Some(Step::Send(batch)),
            }
            if batch.entries.len() >= self.settings.batch_entries_max {
                return Some(Step::Send(batch));
            }
        }
    }

    /// The next command, if there is one until then.
    async fn next_before(&mut self, until: Duration) -> Option<Command> {
        if let Ok(command) = self.queue.try_recv() {
            return Some(command);
        }
        if self.clock.elapsed() >= until {
            return None;
        }
        tokio::select! {
            biased;
            command = self.queue.recv() => command,
            () = self.clock.sleep_until(until) => None,
        }
    }

    async fn send(&mut self, batch: Batch) {
        let Batch { entries, bytes, waiting } = batch;
        let total = entries.len();
        let request = Append::new(self.stream.clone(), entries);
        self.sending = total;
        let answer = self.backend.append(&request).await;
        self.sending = 0;
        drop(request);

        add(&self.counters.batches, 1);
        let results = self.one_each(answer, total);
        self.count(&results, bytes);
        let newest = results.iter().rev().find_map(|result| result.as_ref().ok()).copied();
        let mut results = results.into_iter();
        for waiting in waiting {
            self.answer(waiting, &mut results);
        }
        if let (Some(trim), Some(newest)) = (&mut self.trim, newest) {
            trim.appended(newest, self.clock.elapsed());
        }
    }

    /// A result for each entry, whatever the backend says.
    fn one_each(&self, answer: Result<Vec<Result<EntryId>>>, total: usize) -> Results {
        let mut results = match answer {
            Ok(results) => results,
            Err(error) if total == 1 => vec![Err(error)],
            Err(error) => {
                let error = Arc::new(error);
                (0..total).map(|_| Err(self.of_batch(&error))).collect()
            }
        };
        // A backend that answers for another number of entries has a bug. What it did with those that it left out nobody
        // can tell, and what it says of more than there are belongs to none.
        results.truncate(total);
        while results.len() < total {
            results.push(Err(Error::new(
                ErrorKind::Internal,
                "the backend answered for fewer entries than it was given: report it to its authors",
            )
            .with("backend", self.backend.name())
            .with("stream", &self.stream)
            .with_outcome(Outcome::Unknown)));
        }
        results
    }

    /// The share of one entry in the error of its batch. An error has one owner, so the entries share it as their source.
    fn of_batch(&self, error: &Arc<Error>) -> Error {
        let message = match error.outcome() {
            Outcome::NotApplied => "the entry was not appended, as its whole batch: the source says why",
            Outcome::Unknown => {
                "nobody can tell whether the entry was appended, as its whole batch: the source says why"
            }
        };
        Error::new(error.kind(), message)
            .with_retry(error.retry())
            .with_outcome(error.outcome())
            .with("stream", &self.stream)
            .with_source(Arc::clone(error))
    }

    fn count(&self, results: &Results, bytes: usize) {
        let failed = results.iter().filter_map(|result| result.as_ref().err());
        let (mut not_applied, mut unknown) = (0, 0);
        for error in failed.clone() {
            match error.outcome() {
                Outcome::NotApplied => not_applied += 1,
                Outcome::Unknown => unknown += 1,
            }
        }
        let appended = results.len() as u64 - not_applied - unknown;
        add(&self.counters.appended, appended);
        add(&self.counters.failed, not_applied);
        add(&self.counters.unknown, unknown);
        tracing::trace!(stream = %self.stream, entries = results.len(), appended, bytes, "batch sent");
        if let Some(error) = failed.clone().next() {
            tracing::debug!(stream = %self.stream, not_applied, unknown, %error, "entries not appended");
        }
    }

    fn answer(&self, waiting: Waiting, results: &mut impl Iterator<Item = Result<EntryId>>) {
        let own: Results = results.take(waiting.entries).collect();
        let Err(unheard) = waiting.reply.send(own) else { return };
        // The caller has gone. An error must not go with it.
        for error in unheard.into_iter().filter_map(Result::err) {
            let outcome = error.outcome();
            tracing::warn!(stream = %self.stream, ?outcome, %error, "an append failed that nobody waits for");
        }
    }

    /// Answers what is queued: it was not sent. What was on its way went with the call of the backend, unanswered, which
    /// tells its callers that nobody can tell.
    fn give_up(&mut self) -> GivenUp {
        self.queue.close();
        let mut unsent = 0;
        while let Some(command) = self.carry.take().or_else(|| self.queue.try_recv().ok()) {
            // A flush that is dropped fails.
            let Command::Append(job) = command else { continue };
            unsent += job.waiting.entries;
            let mut results = job.entries.iter().map(|_| Err(queue::closed(&self.stream)));
            self.answer(job.waiting, &mut results);
        }
        let unknown = mem::take(&mut self.sending);
        self.counters.failed.fetch_add(unsent as u64, Relaxed);
        self.counters.unknown.fetch_add(unknown as u64, Relaxed);
        // It can also be that nothing but a trim took too long.
        if unsent + unknown > 0 {
            tracing::warn!(stream = %self.stream, unsent, unknown, "the drain took too long: entries were given up");
        }
        GivenUp { unsent, unknown }
    }
}
