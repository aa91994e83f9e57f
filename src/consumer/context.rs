//! What every part of a running consumer knows.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    DeadLetters, Ownership,
    lane::CallLimit,
    lease::Lease,
    observer::{Observation, Reporter},
    settings::Settings,
    settle::Settler,
};
use crate::{
    Attempts, ConsumerName, EntryId, Epoch, Error, ErrorKind, Incarnation, Result, Retry, Subscription,
    backend::{CheckpointBackend, LoadAttempts, StreamBackend, StreamState, Token},
    clock::Clock,
};

/// What every part of a running consumer knows.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) subscription: Subscription,
    pub(crate) name: ConsumerName,
    pub(crate) token: Token,
    pub(crate) settings: Settings,
    pub(crate) stream: Arc<dyn StreamBackend>,
    pub(crate) store: Arc<dyn CheckpointBackend>,
    pub(crate) settler: Settler,
    pub(crate) dead: DeadLetters,
    pub(crate) clock: Clock,
    pub(crate) lease: Arc<Lease>,
    pub(crate) reporter: Reporter,
    /// Asks the reader to take the resume path before it reads on.
    pub(crate) resume: Notify,
    epoch: AtomicU64,
    /// Whether what is held may belong to a stream, or a checkpoint, that is not there any more.
    in_doubt: AtomicBool,
    incarnation: Mutex<Option<Incarnation>>,
    state: Mutex<Option<StreamState>>,
    /// Shared: when it was asked whether anything was pending with others, if nothing was.
    nothing_pending: Mutex<Option<Duration>>,
    /// Shared: when a save was sent that was not fenced.
    not_fenced: Mutex<Option<Duration>>,
    marks: Mutex<VecDeque<Mark>>,
    reconnects: AtomicU64,
    gaps: AtomicU64,
    /// What the store has as marked by sessions of this process that have ended: it did not die of them.
    outlived: Mutex<Vec<EntryId>>,
}

/// How many are kept: one for each look at the stream, so that they reach back a minute.
const MARKS_MAX: usize = 64;

/// That so many entries had been added to the stream by the time that it ended here. The checkpoint does not always know how
/// many entries it stands for; a stream that was created anew has fewer, and may have passed it already.
#[derive(Debug)]
struct Mark {
    epoch: Epoch,
    last_id: EntryId,
    added: u64,
}

/// The parts of a [`Context`] that are given.
pub(crate) struct Parts {
    pub(crate) subscription: Subscription,
    pub(crate) name: ConsumerName,
    pub(crate) settings: Settings,
    pub(crate) stream: Arc<dyn StreamBackend>,
    pub(crate) store: Arc<dyn CheckpointBackend>,
    pub(crate) settler: Settler,
    pub(crate) dead: DeadLetters,
    pub(crate) clock: Clock,
    pub(crate) reporter: Reporter,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { subscription, name, settings, stream, store, settler, dead, clock, reporter } = parts;
        Self {
            subscription,
            name,
            token: Token(crate::clock::random()),
            settings,
            stream,
            store,
            settler,
            dead,
            lease: Arc::new(Lease::new(clock.clone())),
            clock,
            reporter,
            resume: Notify::new(),
            epoch: AtomicU64::new(0),
            in_doubt: AtomicBool::new(false),
            incarnation: Mutex::default(),
            state: Mutex::default(),
            nothing_pending: Mutex::default(),
            not_fenced: Mutex::default(),
            marks: Mutex::default(),
            reconnects: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            outlived: Mutex::default(),
        }
    }

    /// The name under which this process holds a lease: two processes of one name are two owners.
    pub(crate) fn lease_owner(&self) -> ConsumerName {
        let suffix = format!("#{:016x}", self.token.0);
        let room = 512 - suffix.len();
        let name = self.name.as_str();
        let end = (0..=room.min(name.len())).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
        ConsumerName::new(format!("{}{suffix}", &name[..end]))
            .expect("a valid name and a suffix of visible ASCII")
    }

    /// Whether a lease is held by another process under this consumer's name.
    pub(crate) fn is_namesake(&self, owner: &ConsumerName) -> bool {
        let ours = self.lease_owner();
        let name = |owner: &ConsumerName| owner.as_str().rsplit_once('#').map(|(name, _)| name.to_owned());
        owner != &ours && name(owner) == name(&ours)
    }

    /// When the handler may be called, and how long a call may take.
    pub(crate) fn call_limit(&self) -> CallLimit {
        let (clock, lease) = (self.clock.clone(), Arc::clone(&self.lease));
        CallLimit { clock, limit: self.settings.handler_timeout, lease }
    }

    /// Whether an entry that is given up must be known as such before its letter is written: where that is not one step with
    /// what settles the entry.
    pub(crate) fn notes_doom(&self) -> bool {
        self.settings.ownership == Ownership::Exclusive || matches!(self.dead, DeadLetters::Sink(_))
    }

    /// What is remembered of attempts at these entries, which others may have attempted.
    pub(crate) async fn recall(&self, ids: Vec<EntryId>) -> Result<Vec<Attempts>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.store.attempts(&LoadAttempts::of(self.subscription.clone(), ids)).await
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    /// Shared: from when the resume path is needed until it has been taken.
    pub(crate) fn doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::Release);
    }

    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
    }

    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last that was seen of the stream.
    pub(crate) fn state(&self) -> Option<StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shared: what was asked for at this time shows what is pending; `own`: this one with this consumer, if it is.
    pub(crate) fn saw_pending(&self, asked: Duration, state: Option<&StreamState>, own: EntryId) {
        let group = state.and_then(|state| state.group.as_ref());
        let nothing = group.is_none_or(|group| match group.pending {
            0 => true,
            1 => group.first_pending == Some(own),
            _ => false,
        });
        *self.nothing_pending.lock().unwrap_or_else(PoisonError::into_inner) = nothing.then_some(asked);
    }

    pub(crate) fn saw(&self, state: Option<&StreamState>) {
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner) =
            state.and_then(|s| s.incarnation.clone());
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state.cloned();
        self.mark(state);
    }

    /// Shared: whether nothing can be pending with a consumer whose heartbeat has run out: what has come to it since the last look
    /// came to it alive.
    pub(crate) fn has_nothing_of_the_dead(&self) -> bool {
        let asked = *self.nothing_pending.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_some_and(|asked| self.clock.elapsed() < asked + self.settings.ttl)
    }

    /// A save that was sent at this time found this epoch standing.
    pub(crate) fn was_not_fenced(&self, epoch: Epoch, asked: Duration) {
        if epoch == self.epoch() {
            *self.not_fenced.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        }
    }

    /// When a save was sent last that found the epoch standing.
    pub(crate) fn not_fenced(&self) -> Option<Duration> {
        *self.not_fenced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stream with so many entries ever added is another one than this watermark comes from.
    pub(crate) fn is_another(&self, watermark: EntryId, state: &StreamState) -> bool {
        let Some(added) = state.entries_added else { return false };
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.epoch();
        marks.iter().any(|mark| mark.epoch == epoch && mark.last_id <= watermark && mark.added > added)
    }

    fn mark(&self, state: Option<&StreamState>) {
        let Some((last_id, added)) = state.and_then(|s| Some((s.last_id, s.entries_added?))) else { return };
        let epoch = self.epoch();
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        // A reset takes a new epoch: what was seen before it is of another stream.
        marks.retain(|mark| mark.epoch == epoch);
        if marks.back().is_none_or(|mark| mark.added < added) {
            if marks.len() == MARKS_MAX {
                marks.pop_front();
            }
            marks.push_back(Mark { epoch, last_id, added });
        }
    }

    pub(crate) fn report(&self, observation: &Observation<'_>) {
        self.reporter.report(observation);
    }

    /// A session has ended that had these marked, and could not say that the process lives.
    pub(crate) fn outlive(&self, ids: Vec<EntryId>) {
        self.outlived.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }

    /// What was marked by sessions that have ended. Forgets it.
    pub(crate) fn outlived(&self) -> Vec<EntryId> {
        std::mem::take(&mut *self.outlived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    pub(crate) fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that a store cannot answer, and how long to wait before it is asked again.
    pub(crate) fn unavailable(&self, error: &Error, failed: u32) -> Duration {
        let wait = match error.retry() {
            Retry::Now if failed <= 1 => Duration::from_millis(1),
            _ => self.settings.reconnect.delay(failed),
        };
        self.reconnects.fetch_add(1, Ordering::Relaxed);
        self.report(&Observation::Unavailable { error, wait });
        wait
    }

    /// The time since an entry of this id was appended, by the id.
    pub(crate) fn age(&self, id: EntryId) -> Duration {
        Duration::from_millis(self.clock.now().as_millis().saturating_sub(id.ms))
    }
}

/// Whether a consumer waits and asks again, rather than give up.
pub(crate) fn is_passing(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable || error.retry() != Retry::Never
}
