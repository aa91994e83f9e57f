//! The SQLite backend on real files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic, also in its helpers")]

#[path = "live/support.rs"]
mod support;

#[path = "live/checkpoint.rs"]
mod checkpoint;
#[path = "live/file.rs"]
mod file;
#[path = "live/group.rs"]
mod group;
#[path = "live/process.rs"]
mod process;
#[path = "live/stream.rs"]
mod stream;
#[path = "live/transaction.rs"]
mod transaction;
#[path = "live/wake.rs"]
mod wake;
