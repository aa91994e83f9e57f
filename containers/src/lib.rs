//! Nothing but tests: see `tests/`, and `examples/testcontainers.rs` of the repository.
