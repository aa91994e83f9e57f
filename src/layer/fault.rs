//! Faults on purpose.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Attempt, Call, Layer, Operation};
use crate::{Error, ErrorKind, Outcome, Result, clock::Clock};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The backend is not reached: nothing takes effect, and the error says so.
    Before,
    /// The call takes effect and the reply is lost: the error says that nobody knows.
    After,
    /// The call comes later by this much, and then succeeds or fails by itself.
    Delay(Duration),
    /// The call takes effect at once, and the reply comes later by this much.
    Late(Duration),
    /// Nothing takes effect and there is never an answer, as behind a network that drops everything.
    Hang,
}

/// A layer that makes calls go wrong: on demand, by a script, or by chance that a seed repeats.
///
/// Clones share the script, so a test keeps one and wraps the other around a backend. The next call takes, of what is set
/// for its operation, the first scripted fault; else the one that is always there; else one by chance.
///
/// ```
/// use highwater::{EntryId, ErrorKind, StreamName, backend::{Read, StreamBackend}, layer::{Fault, Faults, Layer, Operation}, memory::Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let faults = Faults::new();
/// let backend = faults.clone().wrap(Memory::new());
/// let read = Read::new(StreamName::new("orders")?, EntryId::ZERO, 10);
///
/// faults.next(Operation::Read, Fault::Before);
/// assert_eq!(backend.read(&read).await.unwrap_err().kind(), ErrorKind::Unavailable);
/// assert!(backend.read(&read).await.is_ok(), "the fault was for one call");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Faults {
    script: Arc<Mutex<Script>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Script {
    next: BTreeMap<Operation, VecDeque<Fault>>,
    always: BTreeMap<Operation, Fault>,
    chance: Option<Chance>,
    calls: BTreeMap<Operation, u64>,
}

#[derive(Debug)]
struct Chance {
    random: fastrand::Rng,
    rate: f64,
    delay: Duration,
}

impl Faults {
    /// None, until some are set.
    #[must_use]
    pub fn new() -> Self {
        Self { script: Arc::default(), clock: Clock::new() }
    }

    /// A share `rate` of all calls goes wrong: not reached, reply lost, or late by up to `delay`. The same seed gives the
    /// same faults to the same sequence of calls.
    #[must_use]
    pub fn seeded(seed: u64, rate: f64, delay: Duration) -> Self {
        let faults = Self::new();
        faults.script().chance = Some(Chance { random: fastrand::Rng::with_seed(seed), rate, delay });
        faults
    }

    /// Waits by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The next call of this operation goes wrong like this; behind those that are set already.
    pub fn next(&self, operation: Operation, fault: Fault) {
        self.script().next.entry(operation).or_default().push_back(fault);
    }

    /// All calls of this operation go wrong like this.
    pub fn always(&self, operation: Operation, fault: Fault) {
        self.script().always.insert(operation, fault);
    }

    /// All calls go wrong like this: the server is away.
    pub fn all(&self, fault: Fault) {
        self.script().always = Operation::ALL.iter().map(|&operation| (operation, fault)).collect();
    }

    /// Nothing goes wrong any more. Calls that hang already go on to.
    pub fn clear(&self) {
        let mut script = self.script();
        script.next.clear();
        script.always.clear();
        script.chance = None;
    }

    /// How many calls of this operation came, those that went wrong included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.script().calls.get(&operation).copied().unwrap_or_default()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        // Nothing panics while it is held half changed.
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Script {
    fn draw(&mut self, operation: Operation) -> Option<Fault> {
        *self.calls.entry(operation).or_default() += 1;
        let scripted = self.next.get_mut(&operation).and_then(VecDeque::pop_front);
        scripted
            .or_else(|| self.always.get(&operation).copied())
            .or_else(|| self.chance.as_mut().and_then(Chance::draw))
    }
}

impl Chance {
    fn draw(&mut self) -> Option<Fault> {
        if self.random.f64() >= self.rate {
            return None;
        }
        let delay = self.delay.mul_f64(self.random.f64());
        Some(match self.random.u8(0..4) {
            0 => Fault::Before,
            1 => Fault::After,
            2 => Fault::Delay(delay),
            _ => Fault::Late(delay),
        })
    }
}

impl Layer for Faults {
    async fn call<'a, T: Send + 'a>(&'a self, call: Call, attempt: Attempt<'a, T>) -> Result<T> {
        let fault = self.script().draw(call.operation);
        match fault {
            None => attempt().await,
            Some(Fault::Before) => Err(injected(call, Outcome::NotApplied)),
            Some(Fault::After) => {
                // An error is lost with the reply as well.
                drop(attempt().await);
                let lost = if call.operation.writes() { Outcome::Unknown } else { Outcome::NotApplied };
                Err(injected(call, lost))
            }
            Some(Fault::Delay(delay)) => {
                self.clock.sleep(delay).await;
                attempt().await
            }
            Some(Fault::Late(delay)) => {
                let result = attempt().await;
                self.clock.sleep(delay).await;
                result
            }
            Some(Fault::Hang) => pending().await,
        }
    }
}

fn injected(call: Call, outcome: Outcome) -> Error {
    Error::new(ErrorKind::Unavailable, "the backend cannot answer: this fault was injected")
        .with("backend", call.backend)
        .with("operation", call.operation)
        .with_outcome(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ConsumerName, EntryId, Epoch, Position, Subscription,
        backend::{Advance, CheckpointBackend},
        memory::Memory,
    };

    fn advance(ms: u64) -> Advance {
        let subscription = Subscription::new("s", "g").unwrap();
        let position = Position::at(EntryId::new(ms, 0));
        Advance::new(subscription, Epoch(0), position, ConsumerName::new("o").unwrap())
    }

    async fn watermark(backend: &impl CheckpointBackend) -> Option<u64> {
        let checkpoint = backend.load(&advance(0).subscription).await.unwrap();
        checkpoint.map(|checkpoint| checkpoint.position.watermark.ms)
    }

    #[tokio::test]
    async fn before_takes_no_effect_and_after_does() {
        let faults = Faults::new();
        let backend = faults.clone().wrap(Memory::new());
        faults.next(Operation::Advance, Fault::Before);
        faults.next(Operation::Advance, Fault::After);
        let error = backend.advance(&advance(1)).await.unwrap_err();
        assert_eq!((error.outcome(), watermark(&backend).await), (Outcome::NotApplied, None));
        let error = backend.advance(&advance(1)).await.unwrap_err();
        assert_eq!((error.outcome(), watermark(&backend).await), (Outcome::Unknown, Some(1)));
        assert!(backend.advance(&advance(2)).await.unwrap().moved);
        assert_eq!(faults.calls(Operation::Advance), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_before_the_effect_and_lateness_behind_it() {
        let faults = Faults::new();
        let backend = faults.clone().wrap(Memory::new());
        let hour = Duration::from_secs(3600);
        for (fault, stored) in [(Fault::Delay(hour), None), (Fault::Late(hour), Some(1))] {
            faults.next(Operation::Advance, fault);
            let dropped = tokio::time::timeout(hour / 2, backend.advance(&advance(1))).await;
            assert!(dropped.is_err());
            assert_eq!(watermark(&backend).await, stored, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn an_outage_ends_when_it_is_cleared() {
        let faults = Faults::new();
        let backend = faults.clone().wrap(Memory::new());
        faults.all(Fault::Before);
        for _ in 0..3 {
            backend.advance(&advance(1)).await.unwrap_err();
        }
        faults.clear();
        backend.advance(&advance(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_repeats_its_faults() {
        let mut runs = Vec::new();
        for seed in [7, 7, 8] {
            let backend = Faults::seeded(seed, 0.5, Duration::from_millis(5)).wrap(Memory::new());
            let mut run = Vec::new();
            for ms in 0..200 {
                run.push(backend.advance(&advance(ms)).await.map_err(|error| error.outcome()));
            }
            runs.push(run.iter().map(|result| result.as_ref().err().copied()).collect::<Vec<_>>());
        }
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0], runs[2]);
        let failed = runs[0].iter().flatten().count();
        assert!((25..75).contains(&failed), "half go wrong, and half of those are only late: {failed}");
    }
}
