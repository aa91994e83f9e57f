//! The suite over memory, shared memory, and each layer over memory.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::Effects;
use crate::{
    EntryId, Result,
    backend::{AtomicSettle, CheckpointBackend, StreamBackend, TransactionalCheckpoint},
    memory::{Memory, Tx},
};

/// Rows in a table, by its name.
#[derive(Default)]
pub(super) struct Rows(Arc<Mutex<Vec<(String, EntryId)>>>);

#[async_trait]
impl Effects<Tx> for Rows {
    async fn write(&self, tx: &mut Tx, table: &str, row: EntryId) -> Result<()> {
        let (rows, table) = (Arc::clone(&self.0), table.to_owned());
        tx.effect(move || rows.lock().unwrap().push((table, row)));
        Ok(())
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        Ok(self.0.lock().unwrap().iter().filter(|(name, _)| name == table).map(|(_, row)| *row).collect())
    }
}

async fn plain() -> Memory {
    Memory::new()
}

async fn shared_stream() -> Arc<dyn StreamBackend> {
    Arc::new(Memory::new())
}

async fn shared_checkpoint() -> Arc<dyn CheckpointBackend> {
    Arc::new(Memory::new())
}

async fn shared_settle() -> Arc<dyn AtomicSettle> {
    Arc::new(Memory::new())
}

async fn plain_effects() -> (Memory, Rows) {
    (Memory::new(), Rows::default())
}

async fn shared_effects() -> (Arc<Memory>, Rows) {
    (Arc::new(Memory::new()), Rows::default())
}

mod memory {
    use super::*;

    crate::stream_conformance!(stream, plain);
    crate::checkpoint_conformance!(checkpoint, plain);
    crate::settle_conformance!(settle, plain);
    crate::transactional_conformance!(transactional, plain_effects);
    crate::fused_conformance!(fused, plain_effects);
}

mod shared {
    use super::*;

    crate::stream_conformance!(stream, shared_stream);
    crate::checkpoint_conformance!(checkpoint, shared_checkpoint);
    crate::settle_conformance!(settle, shared_settle);
    crate::transactional_conformance!(transactional, shared_effects);
    crate::fused_conformance!(fused, shared_effects);
}

mod layered {
    use std::time::Duration;

    use super::*;
    use crate::layer::{Faults, Layer, Layered, Observe, Retry, RetryPolicy, Timeout};

    /// All in the right order.
    async fn stack() -> Layered<Layered<Layered<Layered<Memory, Faults>, Timeout>, Retry>, Observe> {
        let backend = Timeout::new(Duration::from_secs(20)).wrap(Faults::new().wrap(Memory::new()));
        Observe::debug().wrap(Retry::new(RetryPolicy::default()).wrap(backend))
    }

    async fn timeout() -> Layered<Memory, Timeout> {
        Timeout::new(Duration::from_secs(20)).wrap(Memory::new())
    }

    async fn retry() -> Layered<Memory, Retry> {
        Retry::new(RetryPolicy::default()).wrap(Memory::new())
    }

    async fn observe() -> Layered<Memory, Observe> {
        Observe::debug().wrap(Memory::new())
    }

    async fn no_faults() -> Layered<Memory, Faults> {
        Faults::new().wrap(Memory::new())
    }

    async fn all() -> Arc<dyn AtomicSettle> {
        Arc::new(stack().await)
    }

    macro_rules! over {
        ($($layer:ident)*) => {
            $(mod $layer {
                use super::*;

                crate::stream_conformance!(stream, $layer);
                crate::checkpoint_conformance!(checkpoint, $layer);
                crate::settle_conformance!(settle, $layer);
            })*
        };
    }

    over! { timeout retry observe no_faults all }

    macro_rules! transactions_over {
        ($($layer:ident)*) => {
            mod transactional {
                use super::*;

                $(mod $layer {
                    use super::*;

                    async fn make() -> (impl TransactionalCheckpoint<Tx = Tx> + StreamBackend, Rows) {
                        ($layer().await, Rows::default())
                    }

                    crate::transactional_conformance!(transactional, make);
                    crate::fused_conformance!(fused, make);
                })*
            }
        };
    }

    transactions_over! { timeout retry observe no_faults stack }
}
