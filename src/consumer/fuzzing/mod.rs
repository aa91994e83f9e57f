//! Fuzzing of what is private to the consumer.

mod machine;
mod shape;
mod tracker;
mod world;

pub use machine::machine;
pub use tracker::tracker;
