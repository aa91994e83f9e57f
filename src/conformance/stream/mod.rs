//! The cases of a stream backend.

mod ack;
mod append;
mod claim;
mod dead_keys;
mod dead_letter;
mod group;
mod heartbeat;
mod inspect;
mod pending;
mod read;
mod redrive;
mod remove;
mod trim;

use super::support::{Streams, Verdict};

crate::__stream_cases! { [crate::__dispatch] Streams }
