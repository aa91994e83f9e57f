//! One way to start servers, for the tests and for this.

#![allow(
    dead_code,
    unfulfilled_lint_expectations,
    reason = "the tests use what this does not, and the reverse"
)]

#[path = "../../tests/support/postgres.rs"]
pub mod postgres;
#[path = "../../tests/support/process.rs"]
pub mod process;
#[path = "../../tests/support/resp.rs"]
pub mod resp;
#[path = "../../tests/support/server.rs"]
pub mod server;
