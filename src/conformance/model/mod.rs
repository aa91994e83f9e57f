//! Property tests of the whole library over two stores: one model, any combination.
//!
//! A sequence of what may happen to a subscription is drawn, and takes place with real consumers over real stores: appends,
//! handlers that end in any order or fail, crashes, stops, lost replies, outages, stalls, trims, lost groups, streams that are
//! created anew, resets. After every step the guarantees are held against what is known to be true, and at the end all
//! must be handled and saved.

mod actor;
mod facts;
mod operator;
mod plan;
mod run;
mod world;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use run::{Sequences, Summary};

use crate::backend::{AtomicSettle, CheckpointBackend, StreamBackend};

/// The stores of a combination.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Where the stream is.
    pub stream: Arc<dyn StreamBackend>,
    /// Where the checkpoint is.
    pub checkpoints: Arc<dyn CheckpointBackend>,
    /// Both, where one value is both and settles in one step.
    pub fused: Option<Arc<dyn AtomicSettle>>,
}

impl Stores {
    /// Two stores: ack, then advance.
    pub fn two(stream: impl StreamBackend, checkpoints: impl CheckpointBackend) -> Self {
        Self { stream: Arc::new(stream), checkpoints: Arc::new(checkpoints), fused: None }
    }

    /// One store that is both. Sequences settle in one step, or in two.
    pub fn one(backend: impl AtomicSettle) -> Self {
        let backend: Arc<dyn AtomicSettle> = Arc::new(backend);
        Self {
            stream: Arc::<dyn AtomicSettle>::clone(&backend),
            checkpoints: Arc::<dyn AtomicSettle>::clone(&backend),
            fused: Some(backend),
        }
    }
}
