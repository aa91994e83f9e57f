//! The cases of a transactional checkpoint store, by subject.

mod commit;
mod fence;
mod list;
mod once;
mod position;
mod race;

use super::{effects::Transactions, support::Verdict};

crate::__transactional_cases! { [crate::__dispatch] Transactions }
