//! One way to start servers, for all tests.

#![allow(dead_code, reason = "other tests use what these do not")]

#[path = "../../tests/support/process.rs"]
pub mod process;
#[path = "../../tests/support/resp.rs"]
pub mod resp;
#[path = "../../tests/support/server.rs"]
pub mod server;
