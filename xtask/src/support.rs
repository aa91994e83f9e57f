//! One way to start servers, for the tests and for the tasks.

#![allow(dead_code, reason = "the tests use what the tasks do not")]

#[path = "../../tests/support/postgres.rs"]
pub mod postgres;
#[path = "../../tests/support/process.rs"]
pub mod process;
#[cfg(feature = "runs")]
#[path = "../../tests/support/proxy.rs"]
pub mod proxy;
#[path = "../../tests/support/resp.rs"]
pub mod resp;
#[path = "../../tests/support/server.rs"]
pub mod server;
