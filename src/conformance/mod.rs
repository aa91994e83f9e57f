//! The suite that every backend runs: one behaviour a case, one macro line a backend.
//!
//! For authors of backends; behind the feature `conformance`, without a promise of stability. In the tests of a backend:
//!
//! ```
//! mod conformance {
//!     use highwater::memory::Memory;
//!
//!     async fn make() -> Memory {
//!         Memory::new()
//!     }
//!
//!     highwater::stream_conformance!(stream, make);
//!     highwater::checkpoint_conformance!(checkpoint, make);
//!     highwater::settle_conformance!(settle, make);
//! }
//! ```
//!
//! A store whose advance is part of a transaction has [`transactional_conformance!`](crate::transactional_conformance), and
//! [`fused_conformance!`](crate::fused_conformance) where it holds the group as well; both need [`Effects`].
//!
//! Each case is a test of its own, with a runtime of its own, over a backend that `make` opens for it. All may run side by
//! side on one server: each uses stream and group names that nobody else has, and removes its stream when it succeeds.
//!
//! The only way past a case is a [capability](crate::backend::StreamCapabilities) that the backend says it lacks; the case
//! then prints `not applicable: <case>: <reason>`. Everything else fails.

mod cases;
mod checkpoint;
mod effects;
mod fused;
mod letters;
mod list;
pub mod model;
mod run;
mod settle;
mod stream;
mod support;
mod transactional;

#[cfg(test)]
mod tests;

pub use effects::Effects;
pub use run::{run_checkpoint, run_fused, run_settle, run_stream, run_transactional};
