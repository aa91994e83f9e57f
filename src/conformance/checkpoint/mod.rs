//! The cases of a checkpoint store.

mod advance;
mod attempts;
mod lease;
mod operate;
mod record;
mod reset;

use super::support::{Checkpoints, Verdict};

crate::__checkpoint_cases! { [crate::__dispatch] Checkpoints }
