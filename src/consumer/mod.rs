//! Consumes a subscription: reads, calls the handler, settles, and resumes where it stopped.

mod book;
mod builder;
mod burials;
mod context;
mod dead;
mod deliveries;
mod entered;
mod events;
mod gone;
mod handler;
mod ids;
mod keeper;
mod lane;
mod lease;
mod ledger;
mod machine;
mod observer;
mod policy;
mod queue;
mod reader;
mod reading;
mod report;
pub(crate) mod resume;
mod run;
mod session;
mod settings;
mod settle;
mod tracker;
mod transaction;
mod transactional;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use builder::{Builder, Consumer};
pub use dead::{DeadLetterSink, DeadLetters, StreamSink};
pub use deliveries::{Deliveries, Unsettled};
pub(crate) use handler::Verdict;
pub use handler::{BatchHandler, Handler, HandlerError, typed};
pub use observer::{Observation, Observer, Status};
pub use report::Report;
pub use settings::{CheckpointPolicy, OnExhausted, OnGap, OnReset, Ownership, Settings, StartAt};
