//! The cases of a backend that settles in one step.

mod step;

use super::support::{Settles, Verdict};

crate::__settle_cases! { [crate::__dispatch] Settles }
