//! What may take place in the world.

use std::time::Duration;

use proptest::prelude::*;

use crate::consumer::CheckpointPolicy;

/// What the world may do next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Append(u8),
    /// Answer the read that was asked for, with at most so many.
    Read(u8),
    /// Bring some again that were delivered before.
    Redeliver(u8),
    /// The nth lane finishes its next delivery.
    Done(u8),
    Fail(u8),
    Saved,
    /// It is durable, but nobody learns it.
    SavedReplyLost,
    NotSaved,
    Time(u8),
    Crash,
    /// Shared: the group is lost and created at the checkpoint.
    GroupLost,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1u8..9).prop_map(Op::Append),
        6 => (1u8..9).prop_map(Op::Read),
        1 => any::<u8>().prop_map(Op::Redeliver),
        12 => any::<u8>().prop_map(Op::Done),
        2 => any::<u8>().prop_map(Op::Fail),
        5 => Just(Op::Saved),
        1 => Just(Op::SavedReplyLost),
        1 => Just(Op::NotSaved),
        3 => (1u8..50).prop_map(Op::Time),
        1 => Just(Op::Crash),
        1 => Just(Op::GroupLost),
    ]
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Ordering {
    Strict,
    Unordered,
    Keyed,
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) shared: bool,
    pub(super) ordering: Ordering,
    pub(super) policy: CheckpointPolicy,
    pub(super) attempts_max: u32,
    pub(super) ops: Vec<Op>,
}

pub(super) fn any_case(shared: bool) -> impl Strategy<Value = Case> {
    let ordering = prop_oneof![Just(Ordering::Strict), Just(Ordering::Unordered), Just(Ordering::Keyed)];
    let policy = prop_oneof![
        Just(CheckpointPolicy::Coalesced),
        Just(CheckpointPolicy::EveryAck),
        Just(CheckpointPolicy::Entries(3)),
        Just(CheckpointPolicy::Interval(Duration::from_millis(20))),
    ];
    let attempts_max = prop_oneof![Just(u32::MAX), Just(2)];
    (ordering, policy, attempts_max, proptest::collection::vec(any_op(), 10..80)).prop_map(
        move |(ordering, policy, attempts_max, ops)| Case { shared, ordering, policy, attempts_max, ops },
    )
}
