//! The reference: what may happen to a subscription, and a plan of it that makes sense and shrinks.

use std::time::Duration;

use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

use crate::{CheckpointPolicy, OnGap, OnReset, Ownership, layer::Operation};

/// No more consumers live at once.
const ALIVE_MAX: u8 = 3;

/// How the consumers of a sequence are set up.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) ownership: Ownership,
    pub(super) ordering: Ordering,
    pub(super) policy: CheckpointPolicy,
    /// Settle in one step, where the two stores are one.
    pub(super) fused: bool,
    /// Handle entries in transactions, where the checkpoint store has them.
    pub(super) transactional: bool,
    pub(super) on_gap: OnGap,
    pub(super) on_reset: OnReset,
    /// With keyed order: what follows a dead letter of its key is parked behind it.
    pub(super) parks: bool,
    /// Of what the runtime does by chance, such as jitter.
    pub(super) seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordering {
    Strict,
    Unordered,
    Keyed,
}

/// One of the two stores, as one consumer reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    Stream,
    Checkpoints,
    Both,
}

/// What happens. A number chooses among what is there then; where nothing is, nothing happens.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Append(u8),
    /// Another consumer starts.
    Start,
    /// Handlers succeed with some of the deliveries that are out, from the nth on.
    Settle(u8, u8),
    /// A handler fails; the entry comes again.
    Fail(u8),
    /// A handler rejects its entry.
    Reject(u8),
    /// An operator takes a letter out, and appends its entry again, or not.
    Redrive(u8, bool),
    /// A consumer's future is dropped: nobody says goodbye, nothing is saved.
    Crash(u8),
    /// A consumer stops gracefully; its handlers finish before, or not at all.
    Stop(u8, bool),
    Wait(u8),
    /// The next call of this operation takes effect, and its reply is lost.
    ReplyLost(u8, Operation),
    /// The next call of this operation takes effect late.
    Late(u8, Operation, u8),
    /// A store is away for one consumer.
    Away(u8, Store),
    /// Both stores are away for one consumer, for longer than its time to live.
    Stall(u8),
    /// The same, for the consumer of a handler, which then rejects its entry as the stores come back.
    LateReject(u8),
    /// All stores are there again.
    Back,
    /// Somebody of an epoch that is over writes.
    StaleWrite(u8),
    GroupDestroyed,
    /// Entries are trimmed: what is settled, or also what is not.
    Trim(u8, bool),
    /// The stream is deleted and created anew, with ids that were used before.
    Recreated,
    /// An operator sets the checkpoint to another entry.
    Reset(u8),
    /// An operator pauses the subscription, or ends the pause.
    Pause(bool),
}

/// What a plan knows of the world: enough to choose what may sensibly happen next.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) setup: Setup,
    alive: u8,
    appended: u32,
    out: bool,
    rejected: bool,
    paused: bool,
}

/// Makes plans.
#[derive(Debug)]
pub(super) struct Plans;

impl ReferenceStateMachine for Plans {
    type State = Plan;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Plan> {
        any_setup()
            .prop_map(|setup| Plan {
                setup,
                alive: 0,
                appended: 0,
                out: false,
                rejected: false,
                paused: false,
            })
            .boxed()
    }

    fn transitions(plan: &Plan) -> BoxedStrategy<Op> {
        let mut ops: Vec<(u32, BoxedStrategy<Op>)> =
            vec![(4, (1u8..9).prop_map(Op::Append).boxed()), (2, (1u8..60).prop_map(Op::Wait).boxed())];
        if plan.alive < ALIVE_MAX {
            ops.push((if plan.alive == 0 { 12 } else { 2 }, Just(Op::Start).boxed()));
        }
        if plan.appended > 0 {
            let trim = prop_oneof![3 => Just(false), 1 => Just(true)];
            ops.push((1, (any::<u8>(), trim).prop_map(|(upto, lossy)| Op::Trim(upto, lossy)).boxed()));
            ops.push((1, any::<u8>().prop_map(Op::StaleWrite).boxed()));
            if plan.setup.ownership == Ownership::Shared {
                ops.push((1, Just(Op::GroupDestroyed).boxed()));
            }
            if plan.rejected {
                let redrive = (any::<u8>(), any::<bool>()).prop_map(|(nth, append)| Op::Redrive(nth, append));
                ops.push((1, redrive.boxed()));
            }
            let reset = any::<u8>().prop_map(Op::Reset);
            ops.push((
                1,
                prop_oneof![2 => Just(Op::Recreated), 2 => reset, 1 => Just(Op::Pause(true))].boxed(),
            ));
        }
        if plan.paused {
            ops.push((12, Just(Op::Pause(false)).boxed()));
        }
        if plan.alive > 0 {
            ops.push((16, (any::<u8>(), 1u8..5).prop_map(|(nth, count)| Op::Settle(nth, count)).boxed()));
            ops.push((2, any::<u8>().prop_map(Op::Fail).boxed()));
            ops.push((2, any::<u8>().prop_map(Op::Reject).boxed()));
            ops.push((2, any::<u8>().prop_map(Op::Crash).boxed()));
            ops.push((1, (any::<u8>(), any::<bool>()).prop_map(|(nth, ends)| Op::Stop(nth, ends)).boxed()));
            let call = || (any::<u8>(), proptest::sample::select(Operation::ALL));
            ops.push((2, call().prop_map(|(nth, operation)| Op::ReplyLost(nth, operation)).boxed()));
            let late = (call(), 1u8..80).prop_map(|((nth, operation), ms)| Op::Late(nth, operation, ms));
            ops.push((2, late.boxed()));
            let store = prop_oneof![Just(Store::Stream), Just(Store::Checkpoints), Just(Store::Both)];
            ops.push((1, (any::<u8>(), store).prop_map(|(nth, store)| Op::Away(nth, store)).boxed()));
            let stall = any::<(u8, bool)>();
            let stall = stall.prop_map(|(nth, late)| if late { Op::LateReject(nth) } else { Op::Stall(nth) });
            ops.push((1, stall.boxed()));
            if plan.out {
                ops.push((4, Just(Op::Back).boxed()));
            }
        }
        Union::new_weighted(ops).boxed()
    }

    fn apply(mut plan: Plan, op: &Op) -> Plan {
        match op {
            Op::Append(count) => plan.appended += u32::from(*count),
            Op::Start => plan.alive += 1,
            Op::Crash(_) | Op::Stop(..) => plan.alive -= 1,
            Op::Away(..) | Op::Stall(_) => plan.out = true,
            Op::Back => plan.out = false,
            Op::Pause(paused) => plan.paused = *paused,
            Op::Reject(_) | Op::LateReject(_) => plan.rejected = true,
            _ => {}
        }
        plan
    }

    fn preconditions(plan: &Plan, op: &Op) -> bool {
        match op {
            Op::Start => plan.alive < ALIVE_MAX,
            Op::Crash(_) | Op::Stop(..) => plan.alive > 0,
            _ => true,
        }
    }
}

fn any_setup() -> impl Strategy<Value = Setup> {
    let ownership = prop_oneof![Just(Ownership::Shared), Just(Ownership::Exclusive)];
    let ordering = prop_oneof![Just(Ordering::Strict), Just(Ordering::Unordered), Just(Ordering::Keyed)];
    let policy = prop_oneof![
        Just(CheckpointPolicy::Coalesced),
        Just(CheckpointPolicy::EveryAck),
        Just(CheckpointPolicy::Entries(3)),
        Just(CheckpointPolicy::Interval(Duration::from_millis(20))),
    ];
    let on_gap = prop_oneof![Just(OnGap::Fail), Just(OnGap::Skip)];
    let on_reset = prop_oneof![Just(OnReset::Fail), Just(OnReset::FromBeginning)];
    let all = (ownership, ordering, policy, any::<(bool, bool, bool)>(), on_gap, on_reset, any::<u64>());
    all.prop_map(|(ownership, ordering, policy, (fused, transactional, parks), on_gap, on_reset, seed)| {
        Setup { ownership, ordering, policy, fused, transactional, on_gap, on_reset, parks, seed }
    })
}
