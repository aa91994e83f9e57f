//! Sees each call.

use std::{fmt, sync::Arc, time::Duration};

use super::{Attempt, Call, Layer};
use crate::{ErrorKind, Outcome, Result, clock::Clock};

/// Is told of each call when it ends. Called within it: do not block.
///
/// Any closure `Fn(&Observed)` is one.
pub trait CallObserver: Send + Sync + 'static {
    /// A call ended.
    fn observe(&self, observed: &Observed);
}

impl<F: Fn(&Observed) + Send + Sync + 'static> CallObserver for F {
    fn observe(&self, observed: &Observed) {
        self(observed);
    }
}

/// A call that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observed {
    /// Which call.
    pub call: Call,
    /// How long it took.
    pub elapsed: Duration,
    /// How it ended.
    pub ending: Ending,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed(ErrorKind, Outcome),
    /// Its future was dropped before it ended.
    Dropped,
}

/// Tells an observer of each call, and writes a `tracing` event of level debug.
///
/// Outermost it sees calls; inside of [`Retry`](super::Retry) it sees attempts.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use highwater::{EntryId, StreamName, backend::{Read, StreamBackend}, layer::{Layer, Observe, Observed}, memory::Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let calls = Arc::new(AtomicU64::new(0));
/// let seen = Arc::clone(&calls);
/// let observer = move |_: &Observed| {
///     seen.fetch_add(1, Ordering::Relaxed);
/// };
/// let backend = Observe::new(observer).wrap(Memory::new());
/// backend.read(&Read::new(StreamName::new("orders")?, EntryId::ZERO, 10)).await?;
/// assert_eq!(calls.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Observe {
    observer: Option<Arc<dyn CallObserver>>,
    clock: Clock,
}

impl Observe {
    /// Tells this observer.
    #[must_use]
    pub fn new(observer: impl CallObserver) -> Self {
        Self { observer: Some(Arc::new(observer)), clock: Clock::new() }
    }

    /// Writes events alone.
    #[must_use]
    pub fn debug() -> Self {
        Self { observer: None, clock: Clock::new() }
    }

    /// Measures by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

impl fmt::Debug for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observe").finish_non_exhaustive()
    }
}

/// Tells of the call when it is dropped, which is always: also a future that nobody finished ends.
struct Telling<'a> {
    layer: &'a Observe,
    call: Call,
    begun: Duration,
    ending: Ending,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let elapsed = self.layer.clock.elapsed().saturating_sub(self.begun);
        let Self { call, ending, .. } = *self;
        tracing::debug!(
            backend = call.backend,
            operation = call.operation.name(),
            elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            ?ending,
            "called"
        );
        if let Some(observer) = &self.layer.observer {
            observer.observe(&Observed { call, elapsed, ending });
        }
    }
}

impl Layer for Observe {
    async fn call<'a, T: Send + 'a>(&'a self, call: Call, attempt: Attempt<'a, T>) -> Result<T> {
        let begun = self.clock.elapsed();
        let mut telling = Telling { layer: self, call, begun, ending: Ending::Dropped };
        let result = attempt().await;
        telling.ending = match &result {
            Ok(_) => Ending::Succeeded,
            Err(error) => Ending::Failed(error.kind(), error.outcome()),
        };
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        EntryId, StreamName, Subscription,
        backend::{CheckpointBackend, Read, StreamBackend},
        layer::{Fault, Faults, Layered, Operation},
        memory::Memory,
    };

    type Seen = Arc<Mutex<Vec<Observed>>>;

    fn observed() -> (Seen, Faults, Layered<Layered<Memory, Faults>, Observe>) {
        let (seen, faults) = (Seen::default(), Faults::new());
        let observer = {
            let seen = Arc::clone(&seen);
            move |observed: &Observed| seen.lock().unwrap().push(*observed)
        };
        (seen, faults.clone(), Observe::new(observer).wrap(faults.wrap(Memory::new())))
    }

    #[tokio::test(start_paused = true)]
    async fn each_call_is_seen_with_its_end() {
        let (seen, faults, backend) = observed();
        let subscription = Subscription::new("s", "g").unwrap();
        faults.next(Operation::Load, Fault::Delay(Duration::from_secs(3)));
        backend.load(&subscription).await.unwrap();
        faults.next(Operation::Load, Fault::Before);
        backend.load(&subscription).await.unwrap_err();

        let seen = seen.lock().unwrap();
        assert_eq!((seen[0].call.operation, seen[0].call.backend), (Operation::Load, "memory"));
        assert_eq!((seen[0].ending, seen[0].elapsed.as_secs()), (Ending::Succeeded, 3));
        assert_eq!(seen[1].ending, Ending::Failed(ErrorKind::Unavailable, Outcome::NotApplied));
        assert_eq!(seen.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_is_seen() {
        let (seen, _, backend) = observed();
        let read = Read::new(StreamName::new("s").unwrap(), EntryId::ZERO, 1).block(Duration::from_secs(60));
        tokio::time::timeout(Duration::from_secs(1), backend.read(&read)).await.unwrap_err();
        assert_eq!(seen.lock().unwrap()[0].ending, Ending::Dropped);
    }
}
