//! Repetition, where it is safe.

use std::time::Duration;

use super::{Attempt, Call, Layer};
use crate::{Backoff, Error, Outcome, Result, clock::Clock};

/// How often to repeat, and after what wait.
///
/// ```
/// use std::time::Duration;
/// use highwater::{Backoff, layer::RetryPolicy};
///
/// let backoff = Backoff { first: Duration::from_millis(10), ..Backoff::default() };
/// let policy = RetryPolicy { attempts: 5, backoff };
/// # drop(policy);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// At most this many attempts for one call, the first included. More ride out longer outages; fewer fail sooner.
    /// Default: 4.
    pub attempts: u32,
    /// The waits between them. Default: that of [`Backoff`].
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 4, backoff: Backoff::default() }
    }
}

/// Repeats a call that failed, where the error [allows it](crate::Error::retry), and either the call
/// [took no effect](Outcome::NotApplied) or [repeating it changes nothing](super::Operation::is_idempotent).
///
/// An append whose reply was lost is therefore not repeated; it would append twice. Put it outside of
/// [`Timeout`](super::Timeout), so that each attempt has its own deadline.
///
/// ```
/// use highwater::{layer::{Layer, Retry, RetryPolicy}, memory::Memory};
/// let backend = Retry::new(RetryPolicy::default()).wrap(Memory::new());
/// # drop(backend);
/// ```
#[derive(Debug, Clone)]
pub struct Retry {
    policy: RetryPolicy,
    clock: Clock,
}

impl Retry {
    /// Repeats by this policy.
    #[must_use]
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, clock: Clock::new() }
    }

    /// Waits by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How long to wait before the next attempt; `None` if there is none.
    fn wait(&self, call: Call, error: &Error, failed: u32) -> Option<Duration> {
        let safe = error.outcome() == Outcome::NotApplied || call.operation.is_idempotent();
        if !safe || failed >= self.policy.attempts {
            return None;
        }
        match error.retry() {
            crate::Retry::Never => None,
            // At once, but once: an error that comes back at once would make a hot loop of it.
            crate::Retry::Now if failed == 1 => Some(Duration::ZERO),
            crate::Retry::Now | crate::Retry::Later => Some(self.policy.backoff.delay(failed)),
        }
    }
}

impl Layer for Retry {
    async fn call<'a, T: Send + 'a>(&'a self, call: Call, attempt: Attempt<'a, T>) -> Result<T> {
        let mut failed = 0;
        // Once one attempt may have taken effect, a later one that did not does not undo it.
        let mut unknown = false;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failed += 1;
            unknown |= error.outcome() == Outcome::Unknown;
            let Some(wait) = self.wait(call, &error, failed) else {
                let error = if failed > 1 { error.with("attempts", failed) } else { error };
                return Err(if unknown { error.with_outcome(Outcome::Unknown) } else { error });
            };
            tracing::debug!(
                backend = call.backend,
                operation = call.operation.name(),
                failed,
                wait_ms = crate::clock::millis(wait),
                error = %error,
                "repeating a failed call"
            );
            if !wait.is_zero() {
                self.clock.sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ConsumerName, EntryId, Epoch, ErrorKind, Fields, Position, StreamName, Subscription,
        backend::{Advance, Append, CheckpointBackend, Inspect, NewEntry, StreamBackend},
        layer::{Fault, Faults, Layered, Operation},
        memory::Memory,
    };

    fn retrying(attempts: u32) -> (Faults, Layered<Layered<Memory, Faults>, Retry>) {
        let faults = Faults::new();
        let policy = RetryPolicy { attempts, ..RetryPolicy::default() };
        (faults.clone(), Retry::new(policy).wrap(faults.wrap(Memory::new())))
    }

    fn append() -> Append {
        let fields: Fields = [("a", "b")].into_iter().collect();
        Append::new(StreamName::new("s").unwrap(), vec![NewEntry::new(fields)])
    }

    fn advance() -> Advance {
        let subscription = Subscription::new("s", "g").unwrap();
        let position = Position::at(EntryId::new(1, 0));
        Advance::new(subscription, Epoch(0), position, ConsumerName::new("o").unwrap())
    }

    async fn len(backend: &impl StreamBackend) -> u64 {
        let state = backend.inspect(&Inspect::stream(StreamName::new("s").unwrap())).await.unwrap();
        state.map_or(0, |state| state.len)
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_ridden_out() {
        let (faults, backend) = retrying(4);
        for _ in 0..3 {
            faults.next(Operation::Advance, Fault::Before);
        }
        assert!(backend.advance(&advance()).await.unwrap().moved);
        assert_eq!(faults.calls(Operation::Advance), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_limited() {
        let (faults, backend) = retrying(4);
        faults.always(Operation::Advance, Fault::Before);
        let error = backend.advance(&advance()).await.unwrap_err();
        assert_eq!((error.kind(), error.context("attempts")), (ErrorKind::Unavailable, Some("4")));
        assert_eq!(faults.calls(Operation::Advance), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_final_is_not_repeated() {
        let (faults, backend) = retrying(4);
        backend.advance(&advance()).await.unwrap();
        let made_up = Advance { epoch: Epoch(9), ..advance() };
        assert_eq!(backend.advance(&made_up).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(faults.calls(Operation::Advance), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_to_an_append_is_not_repeated() {
        let (faults, backend) = retrying(4);
        faults.next(Operation::Append, Fault::After);
        let error = backend.append(&append()).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!((faults.calls(Operation::Append), len(&backend).await), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_that_took_no_effect_is_repeated() {
        let (faults, backend) = retrying(4);
        faults.next(Operation::Append, Fault::Before);
        backend.append(&append()).await.unwrap();
        assert_eq!(len(&backend).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_to_an_advance_is_repeated() {
        let (faults, backend) = retrying(4);
        faults.next(Operation::Advance, Fault::After);
        assert!(!backend.advance(&advance()).await.unwrap().moved, "it had taken place already");
    }

    #[tokio::test(start_paused = true)]
    async fn an_effect_that_may_have_taken_place_is_not_forgotten() {
        let (faults, backend) = retrying(2);
        faults.next(Operation::Advance, Fault::After);
        faults.next(Operation::Advance, Fault::Before);
        assert_eq!(backend.advance(&advance()).await.unwrap_err().outcome(), Outcome::Unknown);
    }
}
