//! The one integration binary: what the guarantees say, over every backend. `cargo xtask test` provides the servers.

#![expect(clippy::disallowed_methods, reason = "tests measure real time, and wait in it")]
#![expect(unreachable_pub, reason = "in a binary nothing is reachable, and `pub` is easier to read")]

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod cancel;
#[cfg(all(test, feature = "conformance"))]
mod conformance;
#[cfg(test)]
mod delivery;
#[cfg(all(test, feature = "conformance"))]
mod effects;
#[cfg(test)]
mod faults;
#[cfg(all(test, feature = "conformance"))]
mod matrix;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod spawned;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tidy;
