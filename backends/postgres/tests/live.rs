//! The store against a real server: that of `DATABASE_URL`, or one for this process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic, also in its helpers")]
#![expect(clippy::disallowed_methods, reason = "tests measure real time, and wait in it")]

#[path = "../../../tests/support/mod.rs"]
#[expect(unreachable_pub, reason = "it is public where it is at home")]
mod support;

#[path = "../../../tests/support/checkpoint_model.rs"]
#[expect(unreachable_pub, reason = "it is public where it is at home")]
mod checkpoint_model;
#[path = "live/store.rs"]
mod store;

#[path = "live/checkpoints.rs"]
mod checkpoints;
#[path = "live/faults.rs"]
mod faults;
#[path = "live/handlers.rs"]
mod handlers;
#[path = "live/operations.rs"]
mod operations;
#[path = "live/outbox.rs"]
mod outbox;
#[path = "live/pooler.rs"]
mod pooler;
#[path = "live/races.rs"]
mod races;
#[path = "live/review.rs"]
mod review;
#[path = "live/schema.rs"]
mod schema;
#[path = "live/transactions.rs"]
mod transactions;
