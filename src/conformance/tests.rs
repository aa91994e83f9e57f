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
