//! Append entries: in batches, within limits, and with a retention that spares what a checkpoint still needs.

mod append;
mod builder;
mod handle;
mod queue;
mod retention;
mod settings;
mod stats;
#[cfg(test)]
mod tests;

pub use builder::ProducerBuilder;
pub use handle::Producer;
pub use settings::{ProducerSettings, Retention};
pub use stats::ProducerStats;
