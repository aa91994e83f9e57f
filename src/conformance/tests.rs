//! The suite over memory, shared memory, and each layer over memory.

use std::sync::Arc;

use crate::{
    backend::{AtomicSettle, CheckpointBackend, StreamBackend},
    memory::Memory,
};

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

mod memory {
    use super::*;

    crate::stream_conformance!(stream, plain);
    crate::checkpoint_conformance!(checkpoint, plain);
    crate::settle_conformance!(settle, plain);
}

mod shared {
    use super::*;

    crate::stream_conformance!(stream, shared_stream);
    crate::checkpoint_conformance!(checkpoint, shared_checkpoint);
    crate::settle_conformance!(settle, shared_settle);
}

mod layered {
    use std::time::Duration;

    use super::*;
    use crate::layer::{Faults, Layer, Layered, Observe, Retry, RetryPolicy, Timeout};

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

    /// All in the right order, and shared, as a deployment has them.
    async fn all() -> Arc<dyn AtomicSettle> {
        let backend = Timeout::new(Duration::from_secs(20)).wrap(Faults::new().wrap(Memory::new()));
        Arc::new(Observe::debug().wrap(Retry::new(RetryPolicy::default()).wrap(backend)))
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
}
