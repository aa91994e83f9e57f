#![doc = include_str!("../README.md")]

pub mod backend;
pub mod checkpoint;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod delivery;
mod entry;
mod error;
pub mod integrity;
pub mod memory;
mod name;

pub use checkpoint::{Checkpoint, Epoch, IdRange, Incarnation, Position, SettledAhead};
pub use delivery::Delivery;
pub use entry::{Entry, EntryId, Fields};
pub use error::{Error, ErrorKind, Outcome, Result, Retry};
pub use name::{ConsumerName, GroupName, StreamName, Subscription};
