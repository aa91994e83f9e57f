//! Fuzzing of what is private to the consumer.

mod tracker;

pub use tracker::tracker;
pub fn machine(_: &[u8]) {}
