//! Property tests of the whole library over two stores: one model, any combination.
//!
//! A sequence of what may happen to a subscription is drawn, and takes place with real consumers over real stores: appends,
//! handlers that end in any order, fail or reject, letters that are taken out again, crashes, stops, pauses, lost replies,
//! outages, stalls, trims, lost groups, streams that are created anew, resets. After every step the guarantees are held
//! against what is known to be true, and at the end all must be handled and saved.

mod actor;
mod facts;
mod letters;
mod operator;
mod plan;
mod run;
mod stores;
mod world;

#[cfg(test)]
mod mutants;
#[cfg(test)]
mod tests;

pub use run::{Sequences, Summary};
pub use stores::Stores;
