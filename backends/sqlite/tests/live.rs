//! The SQLite backend on real files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic, also in its helpers")]

#[path = "../../../tests/support/checkpoint_model.rs"]
#[expect(unreachable_pub, reason = "it is public where it is at home")]
mod checkpoint_model;
#[path = "live/support.rs"]
mod support;

#[path = "live/checkpoint.rs"]
mod checkpoint;
#[path = "live/file.rs"]
mod file;
#[path = "live/group.rs"]
mod group;
#[path = "live/letters.rs"]
mod letters;
#[path = "live/model.rs"]
mod model;
#[path = "live/process.rs"]
mod process;
#[path = "live/stream.rs"]
mod stream;
#[path = "live/transaction.rs"]
mod transaction;
#[path = "live/wake.rs"]
mod wake;
