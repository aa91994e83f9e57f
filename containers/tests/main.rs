//! The conformance suite, over each version of each server that people run. `cargo xtask test` provides what it can.
//!
//! A suite that finds no Docker daemon, no image or no program says `skipped:` with the reason; in CI that is a failure.

#![expect(clippy::disallowed_methods, reason = "tests measure real time, and wait in it")]
#![expect(unreachable_pub, reason = "in a binary nothing is reachable, and `pub` is easier to read")]

#[cfg(test)]
mod sequences;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod suites;
#[cfg(test)]
mod support;
