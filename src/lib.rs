#![doc = include_str!("../README.md")]

mod attempts;
pub mod backend;
pub mod checkpoint;
pub mod clock;
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consumer;
mod delivery;
mod entry;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod integrity;
pub mod layer;
mod letter;
pub mod memory;
mod name;
pub mod operator;
pub mod producer;
mod retry;

pub use attempts::{Attempts, Doom};
pub use checkpoint::{Checkpoint, Epoch, IdRange, Incarnation, Position, SettledAhead};
pub use consumer::{
    BatchHandler, Builder, CheckpointPolicy, Consumer, DeadLetterSink, DeadLetters, Deliveries, Handler,
    HandlerError, Observation, Observer, OnExhausted, OnGap, OnReset, Ownership, Report, Settings, StartAt,
    Status, StreamSink, Unsettled, typed,
};
pub use delivery::Delivery;
pub use entry::{Entry, EntryId, Fields};
pub use error::{Error, ErrorKind, Outcome, Result, Retry};
pub use letter::{DeathReason, Letter, dead_letter_stream};
pub use memory::Memory;
pub use name::{ConsumerName, GroupName, StreamName, Subscription};
pub use operator::{LetterFilter, Letters, Operator, SeekTo};
pub use producer::Producer;
pub use retry::Backoff;

/// The files beside the code: rendered here, and their examples tested.
#[cfg(any(doc, doctest))]
pub mod _docs {
    #[doc = include_str!("../docs/GUARANTEES.md")]
    pub mod guarantees {}

    #[doc = include_str!("../docs/GLOSSARY.md")]
    pub mod glossary {}

    #[doc = include_str!("../docs/DESIGN.md")]
    pub mod design {}

    #[doc = include_str!("../docs/CLIENTS.md")]
    pub mod clients {}

    #[doc = include_str!("../docs/STORES.md")]
    pub mod stores {}

    #[doc = include_str!("../docs/EXACTLY_ONCE.md")]
    pub mod exactly_once {}

    #[doc = include_str!("../docs/OPERATIONS.md")]
    pub mod operations {}

    #[doc = include_str!("../docs/FAILURES.md")]
    pub mod failures {}

    #[doc = include_str!("../docs/COMPARE.md")]
    pub mod compare {}

    #[doc = include_str!("../docs/TESTING.md")]
    pub mod testing {}

    #[doc = include_str!("../docs/SCENARIOS.md")]
    pub mod scenarios {}

    #[doc = include_str!("../docs/FAULTS.md")]
    pub mod faults {}

    #[doc = include_str!("../docs/PERFORMANCE.md")]
    pub mod performance {}

    #[doc = include_str!("../ARCHITECTURE.md")]
    pub mod architecture {}

    #[doc = include_str!("../CHANGELOG.md")]
    pub mod changelog {}

    #[doc = include_str!("../CONTRIBUTING.md")]
    pub mod contributing {}
}
