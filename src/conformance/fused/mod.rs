//! The cases of a transactional store that holds the group as well.

mod step;

use super::{effects::Fused, support::Verdict};

crate::__fused_cases! { [crate::__dispatch] Fused }
