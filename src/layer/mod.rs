//! Decorators over backends: deadlines, repetition, measurement and faults.
//!
//! A backend tries once and says what happened. Everything else is a layer around it, which is a backend again: a stream
//! store, a checkpoint store, and both in one step, whichever the inner one is.
//!
//! The order matters. Read it from the inside out:
//!
//! ```
//! use std::time::Duration;
//! use highwater::{layer::{Layer, Observe, Retry, RetryPolicy, Timeout}, memory::Memory};
//!
//! // Right: each attempt has a deadline of its own, what repeats stands around it, and one call is observed once.
//! let backend = Timeout::new(Duration::from_secs(5)).wrap(Memory::new());
//! let backend = Retry::new(RetryPolicy::default()).wrap(backend);
//! let backend = Observe::debug().wrap(backend);
//! # drop(backend);
//! ```
//!
//! With `Timeout` around `Retry`, the deadline would end all attempts together, and a server that does not answer the first
//! would never be asked again. With `Observe` innermost, each attempt shows: right for who wants to see them.
//!
//! A consumer repeats by itself what it must, for as long as it must, and needs no `Retry`: that one is for direct callers of
//! a backend. `Fault` is for tests.

mod call;
mod fault;
mod layered;
mod observe;
mod retry;
mod timeout;

pub use call::{Attempt, Call, Operation};
pub use fault::{Fault, Faults};
pub use layered::{Layer, Layered};
pub use observe::{CallObserver, Ending, Observe, Observed};
pub use retry::{Retry, RetryPolicy};
pub use timeout::Timeout;
