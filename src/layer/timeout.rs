//! A deadline for each call.

use std::time::Duration;

use super::{Attempt, Call, Layer};
use crate::{Error, ErrorKind, Outcome, Result, clock::Clock};

/// Ends a call that takes too long with [`ErrorKind::Unavailable`].
///
/// A call that waits for entries has as much time more. Whether a call that writes took place is then
/// [unknown](Outcome::Unknown). Put it inside of [`Retry`](super::Retry): the deadline is for one attempt.
///
/// ```
/// use std::time::Duration;
/// use highwater::{layer::{Layer, Timeout}, memory::Memory};
/// let backend = Timeout::new(Duration::from_secs(5)).wrap(Memory::new());
/// # drop(backend);
/// ```
#[derive(Debug, Clone)]
pub struct Timeout {
    limit: Duration,
    clock: Clock,
}

impl Timeout {
    /// Ends calls after this time.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, clock: Clock::new() }
    }

    /// Tells the time by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

impl Layer for Timeout {
    async fn call<'a, T: Send + 'a>(&'a self, call: Call, attempt: Attempt<'a, T>) -> Result<T> {
        let limit = self.limit.saturating_add(call.block.unwrap_or_default());
        tokio::select! {
            // An answer that is there in time counts, even if the deadline is there too.
            biased;
            result = attempt() => result,
            () = self.clock.sleep(limit) => Err(late(call, limit)),
        }
    }
}

fn late(call: Call, limit: Duration) -> Error {
    let outcome = if call.operation.writes() { Outcome::Unknown } else { Outcome::NotApplied };
    Error::new(ErrorKind::Unavailable, "the backend did not answer in time: try again, or allow it more time")
        .with("backend", call.backend)
        .with("operation", call.operation)
        .with("limit_ms", limit.as_millis())
        .with_outcome(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Position, StreamName, Subscription,
        backend::{Advance, CheckpointBackend, Read, StreamBackend},
        layer::{Fault, Faults, Operation},
        memory::Memory,
    };

    const LIMIT: Duration = Duration::from_secs(1);

    fn subscription() -> Subscription {
        Subscription::new("s", "g").unwrap()
    }

    fn advance() -> Advance {
        let owner = crate::ConsumerName::new("o").unwrap();
        Advance::new(subscription(), crate::Epoch(0), Position::at(crate::EntryId::new(1, 0)), owner)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends() {
        let faults = Faults::new();
        let backend = Timeout::new(LIMIT).wrap(faults.clone().wrap(Memory::new()));
        faults.next(Operation::Load, Fault::Hang);
        let error = backend.load(&subscription()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
        assert_eq!(error.context("operation"), Some("load"));

        faults.next(Operation::Advance, Fault::Hang);
        let error = backend.advance(&advance()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_entries_is_not_slowness() {
        let clock = Clock::new();
        let backend = Timeout::new(LIMIT).clock(clock.clone()).wrap(Memory::new());
        let read = Read::new(StreamName::new("s").unwrap(), crate::EntryId::ZERO, 1).block(LIMIT * 10);
        let begun = clock.elapsed();
        assert_eq!(backend.read(&read).await.unwrap(), []);
        assert!(clock.elapsed() - begun >= LIMIT * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_fast_enough_is_not_touched() {
        let faults = Faults::new();
        let backend = Timeout::new(LIMIT).wrap(faults.clone().wrap(Memory::new()));
        faults.next(Operation::Advance, Fault::Delay(LIMIT / 2));
        assert!(backend.advance(&advance()).await.unwrap().moved);
    }
}
