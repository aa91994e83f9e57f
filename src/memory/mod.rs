//! The reference backend: streams and checkpoints in memory.
//!
//! It does what the traits say and nothing else, so it is what the other backends, and the runtime, are tested against. It
//! is also of use in the tests of an application. Nothing outlives the process.
//!
//! ```
//! use highwater::{Fields, memory::Memory, StreamName, backend::{Append, NewEntry, Read, StreamBackend}, EntryId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> highwater::Result<()> {
//! let memory = Memory::new();
//! let stream = StreamName::new("orders")?;
//! let fields: Fields = [("kind", "paid")].into_iter().collect();
//! memory.append(&Append::new(stream.clone(), vec![NewEntry::new(fields)])).await?;
//!
//! let entries = memory.read(&Read::new(stream, EntryId::ZERO, 10)).await?;
//! assert_eq!(entries[0].fields.get("kind").unwrap(), "paid");
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod group;
mod letters;
mod log;
mod record;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod transaction;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use self::state::State;
pub use self::transaction::Tx;
use crate::{Error, ErrorKind, Result, clock::Clock};

/// Streams and checkpoints in memory: stream store, checkpoint store and [`AtomicSettle`](crate::backend::AtomicSettle).
///
/// A value is a connection, and what it connects to is shared with its clones: cloning is cheap and opens another
/// connection, also from a closed one, and [`close`](crate::backend::StreamBackend::close) closes its own connection alone.
pub struct Memory {
    shared: Arc<Shared>,
    closed: watch::Sender<bool>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::new())
    }

    /// An empty store that tells the time by this clock.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self::connect(Arc::new(Shared { clock, state: Mutex::default() }))
    }

    fn connect(shared: Arc<Shared>) -> Self {
        Self { shared, closed: watch::Sender::new(false) }
    }

    fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        if *self.closed.borrow() {
            return Err(closed());
        }
        // No step panics half done, so a state that a panicking test left behind is whole.
        Ok(self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shut(&self) {
        self.closed.send_replace(true);
    }

    /// Ends when this connection is closed.
    async fn until_closed(&self) -> Error {
        // The sender is in `self`, so this cannot end otherwise.
        let _ = self.closed.subscribe().wait_for(|&closed| closed).await.is_ok();
        closed()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self::connect(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Entries may hold secrets.
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this connection was closed: open a new one")
}
