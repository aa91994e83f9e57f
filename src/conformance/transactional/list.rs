//! The lists of cases for transactions, and the macros that make tests of them.

/// Runs every case for a [`TransactionalCheckpoint`](crate::backend::TransactionalCheckpoint) over what `make` opens, each as a
/// test of its own.
///
/// Use it where a module may stand. The first argument is the name of the module; the second is an async function or closure
/// without arguments, a path being looked up from where the macro stands. It makes the store and its
/// [`Effects`](crate::conformance::Effects), which write what a handler would.
///
/// ```
/// # mod tests {
/// use std::sync::{Arc, Mutex};
///
/// use highwater::{EntryId, Result, conformance::Effects, memory::{Memory, Tx}};
///
/// #[derive(Default)]
/// struct Rows(Arc<Mutex<Vec<(String, EntryId)>>>);
///
/// #[async_trait::async_trait]
/// impl Effects<Tx> for Rows {
///     async fn write(&self, tx: &mut Tx, table: &str, row: EntryId) -> Result<()> {
///         let (rows, table) = (Arc::clone(&self.0), table.to_owned());
///         tx.effect(move || rows.lock().unwrap().push((table, row)));
///         Ok(())
///     }
///
///     async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
///         Ok(self.0.lock().unwrap().iter().filter(|(name, _)| name == table).map(|(_, row)| *row).collect())
///     }
/// }
///
/// async fn make() -> (Memory, Rows) {
///     (Memory::new(), Rows::default())
/// }
///
/// highwater::transactional_conformance!(memory, make);
/// # }
/// ```
#[macro_export]
macro_rules! transactional_conformance {
    ($name:ident, $make:expr) => {
        $crate::__transactional_cases! { [$crate::__tests] $name run_transactional $make }
    };
}

/// Runs every case for a [`TransactionalCheckpoint`](crate::backend::TransactionalCheckpoint) that is the
/// [`StreamBackend`](crate::backend::StreamBackend) as well, and acks in the same step; as
/// [`transactional_conformance!`](crate::transactional_conformance) does.
#[macro_export]
macro_rules! fused_conformance {
    ($name:ident, $make:expr) => {
        $crate::__fused_cases! { [$crate::__tests] $name run_fused $make }
    };
}

/// All cases of a transactional checkpoint store, once. Both the tests and what runs them by name are made from it: a case that
/// is not in the list is dead code, and one that is not written does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! __transactional_cases {
    ([$($then:tt)*] $($context:tt)*) => {
        $($then)*! { [$($context)*]
            commit {
                effects_and_settled_entries
                effects_and_checkpoint
                a_dropped_one_leaves_nothing
                without_effects
                g14_a_dropped_one_is_whole
                g14_a_dropped_begin
            }
            once {
                g9_each_by_itself
                g9_with_a_position
                g9_a_batch_is_whole
                at_or_below_the_watermark
                settled_ahead
                up_to_the_end_of_u64
                a_large_batch
                subscriptions_do_not_share
            }
            fence {
                g4_by_another_owner
                g4_while_it_was_open
                g4_beside_a_takeover
                g4_by_a_reset
                a_reset_clears
                a_made_up_epoch_is_invalid
                g4_fenced_where_all_is_settled
            }
            position {
                is_stored
                keeps_what_it_does_not_know
                knows_what_was_settled_by_itself
                g18_one_that_leaves_an_entry_unsettled_is_invalid
            }
            race {
                g9_one_takes_place
                g9_batches_overlap
                g9_positions_meet
            }
        }
    };
}

/// All cases of a transactional store that holds the group as well, once. Both the tests and what runs them by name are made
/// from it: a case that is not in the list is dead code, and one that is not written does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! __fused_cases {
    ([$($then:tt)*] $($context:tt)*) => {
        $($then)*! { [$($context)*]
            step {
                acks_and_advances
                g2_out_of_order
                g9_once
                g4_fenced_acks_nothing
                a_dropped_one_leaves_nothing
                g9_side_by_side
            }
        }
    };
}
