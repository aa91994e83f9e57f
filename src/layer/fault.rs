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

/// The longest prefix that chance leaves of a batch.
const PART_MAX: usize = 4;

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
    /// The call is carried out twice, as by a client that repeats what it has no answer to. The second answer counts.
    ///
    /// A transaction can be ended only once: for `settled` and `commit` it is nothing.
    Twice,
    /// Of a batch only a prefix is carried out: this many entries, at least 1.
    ///
    /// `append` says of each of the others that it was not appended; what reads (`read`, `read_group`, `read_pending`, `claim`)
    /// brings fewer than asked for. All else is atomic by its contract, and whole.
    Part(usize),
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
    /// Draws what is partial, apart from the rest: a reply may be partial and lost, too.
    parts: fastrand::Rng,
    rate: f64,
    rates: BTreeMap<Operation, f64>,
    delay: Duration,
}

impl Faults {
    /// None, until some are set.
    #[must_use]
    pub fn new() -> Self {
        Self { script: Arc::default(), clock: Clock::new() }
    }

    /// A share `rate` of all calls goes wrong: not reached, reply lost, late by up to `delay`, or carried out twice where that
    /// is [harmless](Operation::is_idempotent). As large a share of batches is cut to a prefix. The same seed gives the same
    /// faults to the same sequence of calls.
    #[must_use]
    pub fn seeded(seed: u64, rate: f64, delay: Duration) -> Self {
        let faults = Self::new();
        let random = fastrand::Rng::with_seed(seed);
        let parts = fastrand::Rng::with_seed(!seed);
        faults.script().chance = Some(Chance { random, parts, rate, rates: BTreeMap::new(), delay });
        faults
    }

    /// Of [`seeded`](Self::seeded) faults, this operation gets another share. Without a seed it changes nothing.
    #[must_use]
    pub fn rate(self, operation: Operation, rate: f64) -> Self {
        if let Some(chance) = &mut self.script().chance {
            chance.rates.insert(operation, rate);
        }
        self
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
            .or_else(|| self.chance.as_mut().and_then(|chance| chance.draw(operation)))
    }

    /// The prefix of the call that comes next. [`draw`](Self::draw) follows, and takes a scripted one away.
    fn part(&mut self, operation: Operation) -> Option<usize> {
        let set = self.next.get(&operation).and_then(VecDeque::front).or(self.always.get(&operation));
        match set {
            Some(Fault::Part(entries)) => Some(*entries),
            Some(_) => None,
            None => self.chance.as_mut().and_then(|chance| chance.part(operation)),
        }
    }
}

impl Chance {
    fn rate(&self, operation: Operation) -> f64 {
        self.rates.get(&operation).copied().unwrap_or(self.rate)
    }

    fn draw(&mut self, operation: Operation) -> Option<Fault> {
        if self.random.f64() >= self.rate(operation) {
            return None;
        }
        let delay = self.delay.mul_f64(self.random.f64());
        let kinds = if operation.is_idempotent() { 5 } else { 4 };
        Some(match self.random.u8(0..kinds) {
            0 => Fault::Before,
            1 => Fault::After,
            2 => Fault::Delay(delay),
            3 => Fault::Late(delay),
            _ => Fault::Twice,
        })
    }

    fn part(&mut self, operation: Operation) -> Option<usize> {
        (self.parts.f64() < self.rate(operation)).then(|| self.parts.usize(1..=PART_MAX))
    }
}

impl Layer for Faults {
    fn entries_max(&self, call: Call) -> usize {
        self.script().part(call.operation).map_or(usize::MAX, |entries| entries.max(1))
    }

    async fn call<'a, T: Send + 'a>(&'a self, call: Call, attempt: Attempt<'a, T>) -> Result<T> {
        let fault = self.script().draw(call.operation);
        match fault {
            // What is partial was cut before it came here.
            None | Some(Fault::Part(_)) => attempt().await,
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
            Some(Fault::Twice) => {
                if !matches!(call.operation, Operation::Settled | Operation::Commit) {
                    // Whatever it says is lost.
                    drop(attempt().await);
                }
                attempt().await
            }
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
mod tests;
