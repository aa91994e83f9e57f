//! The lists of cases.

/// All cases of a stream backend, once. Both the tests and what runs them by name are made from it: a case that is not in the list is
/// dead code, and one that is not written does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! __stream_cases {
    ([$($then:tt)*] $($context:tt)*) => {
        $($then)*! { [$($context)*]
            append {
                ids_ascend
                explicit_ids_are_kept
                an_id_not_above_the_last_is_invalid
                zero_is_no_id
                a_removed_id_is_not_free
                an_entry_needs_fields
                bytes_come_back
                a_large_entry_survives
                a_failed_entry_stands_alone
                ids_reach_the_end_of_u64
                chosen_ids_follow_a_far_future_one
                concurrent_appends_all_arrive
                streams_do_not_mix
            }
            trim {
                to_a_length
                below_an_id
                ids_are_not_compared_as_text
                keep_from_wins
                keep_from_adds_nothing
                keep_from_between_entries
                nothing_over_the_limit
                approximate_keeps_at_least
                to_nothing
                a_missing_stream
            }
            inspect {
                a_missing_stream
                what_it_holds
                the_last_id_survives
                the_count_survives
                a_new_stream_counts_anew
                capabilities_are_honest
                a_life_keeps_its_name
                another_life_has_another_name
                a_stream_of_a_group_has_a_life
                a_missing_group
                a_group
                deleted_entries_stay_pending
                entries_read_is_right_or_unknown
            }
            remove {
                entries
                a_group
                a_group_with_its_heartbeats
                a_stream
                what_is_missing
                entries_before_they_are_delivered
                a_closed_backend_says_so
            }
            read {
                after_an_id
                a_limit
                a_missing_stream
                over_what_is_gone
                changes_nothing
                a_blocked_read_takes_what_is_there
                a_blocked_read_wakes
                a_blocked_read_wakes_with_the_stream
                all_blocked_readers_wake
                a_blocked_read_ends
                a_blocked_read_holds_up_nobody
                a_dropped_read_disturbs_nothing
            }
            group {
                is_created_once
                creates_the_stream
                starts_at_its_position
                moves_forward
                never_moves_back
                keeps_what_is_pending
                is_created_once_by_many
                takes_the_ordinal
                may_stand_in_the_future
                groups_do_not_share
                delivers_in_order
                consumers_do_not_share
                a_missing_one_is_an_error
                a_blocked_read_wakes
                a_blocked_read_ends
                blocked_readers_do_not_share
                a_blocked_read_learns_that_the_group_went
                a_blocked_read_learns_that_the_stream_went
                a_dropped_read_loses_nothing
            }
            pending {
                comes_back
                in_pages
                of_others_stays_with_them
                acked_does_not_come_back
                counts_deliveries
                deleted_comes_without_fields
                after_the_last_id_is_nothing
                delivers_nothing_new
            }
            ack {
                is_idempotent
                the_same_id_twice
                in_order
                g2_out_of_order
                g2_with_holes
                with_many_holes
                an_empty_one_tells_the_position
                a_missing_group
                of_what_was_not_delivered
                g4_late_by_another
                of_a_group_created_anew_before
                of_a_group_created_anew_behind
                a_deleted_entry_holds_the_watermark
                knows_the_ordinal
                the_ordinal_is_right_or_unknown
                names_the_life_of_the_stream
                many_at_once
                side_by_side
            }
            heartbeat {
                first_fresh_then_unbroken
                g13_a_second_process_is_refused
                others_are_not_concerned
                frees_the_name_when_it_runs_out
                a_gap_is_told
                lengthens
                tokens_are_whole
                leaving_frees_the_name
                coming_back_is_fresh
                leaving_gives_what_is_pending
                leaving_for_another_does_nothing
                leaving_what_is_missing
                the_living_are_counted
            }
            claim {
                g13_the_living_keep
                g13_the_dead_give
                g13_never_its_own
                others_keep_until_idle
                others_give_when_idle
                moves_the_entry
                once
                back_to_life
                only_what_is_pending
                g7_deleted_entries_come_without_fields
                deleted_entries_of_the_living_stay
                one_at_a_time
                from_a_place
                the_living_do_not_hide_the_dead
                claimers_do_not_share
                the_dead_lose_nothing
                the_dead_without_entries_go
                nothing_pending
            }
            dead_letter {
                g11_appends_and_acks
                g11_keeps_the_order
                g11_the_watermark_follows
                g11_once
                g11_once_with_another_account
                g11_any_bytes
                g11_another_life_of_the_stream
                g11_another_entry_of_the_same_id
                g11_an_entry_that_left_the_stream
                g11_a_failed_write_acks_nothing
                g11_in_the_stream_itself_is_invalid
                g11_many_at_once
                g11_side_by_side
                g4_held_by_another
                g4_not_pending
                g4_a_missing_group
                g4_beside_a_claim
                g11_without_a_group
                g11_without_a_group_once
                g11_one_that_lies_there_is_acked_for_whoever_holds_it
                g11_fates_in_order
                subscriptions_do_not_share
                nothing_to_bury
                a_blocked_read_wakes
                a_blocked_group_wakes
                a_closed_backend_says_so
            }
            dead_keys {
                none
                g10_are_counted
                g10_are_whole_and_in_order
                g10_without_a_key
                g10_once
                g10_of_another_subscription
                g10_of_another_stream
                g10_parked_behind_its_key
                g10_parked_in_one_call
                g10_unparked
                g10_unparked_when_its_key_is_free
                g10_unparked_goes_before_full
                g10_full
                g10_only_the_parked_are_bounded
                g10_parked_is_told_again
                g4_parked_is_held_by_another
                g10_trimmed_letters_free_their_key
                g10_trimmed_letters_make_room
                g10_a_removed_stream_frees_all_keys
            }
            redrive {
                g11_appends_and_removes
                g11_drops
                g11_once
                g11_once_in_one_call
                g11_what_was_never_there
                g11_keeps_the_order
                g11_any_bytes
                g11_a_failed_append_keeps_the_letter
                g11_into_the_stream_itself_is_invalid
                g11_the_stream_of_the_letters_stays
                g11_the_entry_may_die_again
                g11_the_new_letter_of_a_reused_id_is_known
                g10_frees_the_key
                g10_counts_down
                g10_counts_down_once
                g11_creates_the_stream
                g11_many_at_once
                g11_side_by_side
                nothing_to_take_out
                a_blocked_read_wakes
            }
        }
    };
}

/// All cases of a checkpoint store, once. Both the tests and what runs them by name are made from it: a case that is not in the list is
/// dead code, and one that is not written does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! __checkpoint_cases {
    ([$($then:tt)*] $($context:tt)*) => {
        $($then)*! { [$($context)*]
            record {
                none
                a_position_comes_back
                extremes_come_back
                says_who_and_when
                more_settled_ahead_is_progress
                a_higher_watermark_replaces_what_is_ahead
                ordinals_stay_with_their_watermark
                the_life_of_the_stream_is_kept
                many_holes_are_never_settled
                the_list_of_a_stream
                names_never_collide
                the_longest_names
                a_closed_backend_says_so
            }
            advance {
                creates_the_record
                moves_forward
                is_idempotent
                g3_never_back
                g3_ids_are_not_compared_as_text
                up_to_the_end_of_u64
                g4_fenced
                g4_the_same_owner_is_fenced
                g4_fenced_where_it_would_change_nothing
                a_made_up_epoch_is_invalid
                under_a_loaded_epoch
                g3_side_by_side
                g4_beside_a_takeover
            }
            lease {
                the_first_owner
                epochs_grow
                an_owner_after_none
                an_owner_gets_the_position
                held
                an_owner_may_take_it_again
                a_takeover
                nobody_followed
                renewing_lengthens
                renewing_counts_from_now
                renewing_is_fenced
                releasing_makes_way
                releasing_is_fenced
                the_loser_frees_nothing
                releasing_keeps_the_position
                t39_a_cold_start
                g4_a_contested_takeover
            }
            reset {
                g3_moves_back
                replaces_the_position
                creates_the_record
                the_next_owner
                refused_while_owned
                forced_while_owned
                ends_the_lease
                after_the_lease
                of_another_epoch
                t35_beside_an_advance
            }
            operate {
                without_a_position_it_stays
                without_a_position_at_the_beginning
                g4_without_a_position_too
                pauses
                ends_a_pause
                a_pause_survives_what_consumers_do
                a_pause_survives_a_reset_to_a_position
                pauses_where_it_sets
                the_list_tells_a_pause
                a_reason_is_kept
                a_reason_goes_with_the_next_reset
                a_reason_of_any_text
                g18_a_reason_that_is_none
                g4_refused_while_owned
                g4_forced_while_owned
                g4_of_another_watermark
                g4_of_another_watermark_by_force
                g4_watermarks_are_whole
                g4_the_beginning_is_expected_of_none
                g4_of_both
                g4_side_by_side
                g4_one_skips
            }
            attempts {
                none
                come_back
                of_any_text
                in_order
                of_some_entries
                of_no_entries
                are_replaced
                are_forgotten
                in_one_step
                is_idempotent
                many_at_once
                side_by_side
                subscriptions_do_not_share
                make_no_checkpoint
                g11_survive_what_consumers_do
                g11_survive_a_reset_that_stays
                a_new_position_forgets_them
                a_refused_reset_keeps_them
                g4_fenced
                g4_fenced_after_a_reset
                a_made_up_epoch_is_invalid
                g4_beside_a_takeover
                a_closed_backend_says_so
            }
        }
    };
}

/// All cases of a backend that settles in one step, once. Both the tests and what runs them by name are made from it: a case that is not in the list is
/// dead code, and one that is not written does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! __settle_cases {
    ([$($then:tt)*] $($context:tt)*) => {
        $($then)*! { [$($context)*]
            step {
                acks_and_advances
                tells_the_position_of_an_ack
                stores_what_it_tells
                g2_out_of_order
                is_idempotent
                g4_fenced_acks_nothing
                a_made_up_epoch_acks_nothing
                a_missing_group
                g5_what_is_pending_again_stays_settled
                g3_never_back
                an_empty_one_advances
                g3_side_by_side
            }
        }
    };
}
