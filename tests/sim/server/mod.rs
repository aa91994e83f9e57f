//! The stores as one consumer reaches them: memory, whose every effect the auditor sees, and which a mutant may spoil.

pub mod late;
mod store;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater::{
    EntryId, ErrorKind, Memory, Result, Subscription,
    backend::CheckpointBackend,
    clock::{Clock, Freeze},
    layer::{Attempt, Call, Faults, Layer, Layered, Timeout},
};

use crate::{audit::Audit, mutants::Mutant};

/// How a consumer reaches a store: faults by chance, outages on top, a deadline, and a process that may be frozen.
pub type Wire = Layered<Layered<Layered<Layered<Server, Faults>, Faults>, Timeout>, Link>;

/// The stores, for one who calls them. The operator is number 0.
#[derive(Debug, Clone)]
pub struct Server {
    pub stream: Memory,
    pub store: Memory,
    pub subscription: Subscription,
    pub audit: Audit,
    pub who: usize,
    pub mutant: Option<Mutant>,
    /// For mutants: the greatest id that was read, and chance.
    pub seen: Arc<Mutex<EntryId>>,
    pub random: Arc<Mutex<fastrand::Rng>>,
    /// The share of writes that go on by themselves.
    pub late: f64,
    /// The resets of which the caller knew when it sent what is carried out now.
    pub era: u32,
    pub clock: Clock,
}

impl Server {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant) && self.who != 0
    }

    /// What is planted for those who are not consumers, too.
    fn is_for_all(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether an effect is dropped and reported as done.
    fn swallows(&self) -> bool {
        self.is(Mutant::SwallowedError) && self.chance().u8(..8) == 0
    }

    fn chance(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, ids: impl Iterator<Item = EntryId>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = ids.fold(*seen, EntryId::max);
    }

    fn seen(&self) -> EntryId {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the auditor the checkpoint as it is now.
    pub async fn look(&self) -> Result<()> {
        let checkpoint = self.store.load(&self.subscription).await?;
        self.audit.lock().look(checkpoint.as_ref());
        Ok(())
    }

    /// Counts what was refused.
    fn told<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
            self.audit.lock().fenced();
        }
        result
    }
}

/// The process of a consumer: while it is frozen it sends nothing and takes no answer. All its calls are in the trace.
#[derive(Debug, Clone)]
pub struct Link {
    pub audit: Audit,
    pub who: usize,
    pub freeze: Freeze,
}

impl Layer for Link {
    async fn call<'a, T: Send + 'a>(&'a self, call: Call, attempt: Attempt<'a, T>) -> Result<T> {
        self.freeze.thawed().await;
        if !self.audit.lock().calls(self.who, call.operation.name()) {
            std::future::pending::<()>().await;
        }
        let result = attempt().await;
        if let Err(error) = &result {
            let (who, kind) = (self.who, error.kind());
            self.audit.lock().note(format_args!("c{who} {}: {kind:?} {:?}", call.operation, error.outcome()));
        }
        self.freeze.thawed().await;
        result
    }
}
