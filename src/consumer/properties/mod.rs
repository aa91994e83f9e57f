//! Properties of the machine and its tracker, over random completions, failures, crashes, redeliveries and lost replies.
//!
//! The entries that a handler has succeeded with are what the guarantees are held against.

mod cases;
mod world;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use self::{
    cases::{Case, any_case},
    world::World,
};
use super::tracker::{Admission, Mutant, Tracker};
use crate::{EntryId, Position, SettledAhead};

fn holds(case: Case, mutant: Option<Mutant>) -> Result<(), TestCaseError> {
    let mut world = World::new(case.clone(), mutant);
    for op in case.ops {
        world.step(op)?;
    }
    world.settle_down()?;
    for id in &world.stream {
        prop_assert!(world.handled.contains_key(id), "G1: {} was lost", id);
    }
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

fn run(shared: bool) {
    let result = runner(10_000).run(&any_case(shared), |case| holds(case, None));
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn g2_g3_g5_g10_exclusive() {
    run(false);
}

#[test]
fn g1_g2_g3_g5_shared() {
    run(true);
}

#[test]
fn each_broken_tracker_is_caught() {
    for (mutant, guarantees) in [
        (Mutant::HighestSettled, ["G2", "G2"]),
        (Mutant::ForgetAhead, ["G5", "G5"]),
        (Mutant::AdmitTwice, ["G5", "G5"]),
        // What it settles too early is seen at once, or missed at the end.
        (Mutant::OffByOne, ["G1", "G2"]),
        (Mutant::FallsBack, ["G3", "G3"]),
    ] {
        // The same cases each time, so that this test does not depend on luck.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let config =
            Config { cases: 5_000, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = runner.run(&any_case(false), |case| holds(case, Some(mutant)));
        let Err(TestError::Fail(reason, _)) = result else { panic!("{mutant:?} was not caught: {result:?}") };
        let expected = guarantees.iter().any(|guarantee| reason.message().starts_with(guarantee));
        assert!(expected, "{mutant:?}: {reason}");
    }
}

proptest! {
    #![proptest_config(Config { cases: 2_000, failure_persistence: None, ..Config::default() })]

    /// What a transaction is to store is where the tracker stands once its entries are settled.
    #[test]
    fn g9_the_position_after_a_chunk_is_the_one_that_settling_it_leads_to(
        read in 1..40u64,
        holes in proptest::collection::btree_set(1..60u64, 0..10),
        top in proptest::option::of(20..60u64),
        chunk in 1..20usize,
        ordinal in proptest::option::of(Just(0)),
    ) {
        let id = |n| EntryId::new(n, 0);
        let ahead = top.map_or_else(SettledAhead::default, |top| SettledAhead::new(id(top), holes.into_iter().map(id)));
        let stored = Position::at(EntryId::ZERO).with_ahead(ahead).with_ordinal(ordinal);
        let mut tracker = Tracker::new(stored.clone());
        let new = (1..=read).map(id).filter(|&id| tracker.admit(id) == Admission::New).collect::<Vec<_>>();
        let chunk = &new[..chunk.min(new.len())];
        let foretold = tracker.position_after(chunk.iter().copied(), usize::MAX);
        chunk.iter().for_each(|&id| tracker.settle(id));
        // As a store keeps them: where no hole is left, the watermark is the top.
        let kept = |position: Position| position.merged_into(&stored).unwrap_or_else(|| stored.clone());
        let (foretold, reached) = (kept(foretold), kept(tracker.position(usize::MAX)));
        prop_assert_eq!(&foretold.watermark, &reached.watermark);
        for n in 1..=60 {
            prop_assert_eq!(foretold.settles(id(n)), reached.settles(id(n)), "{}", n);
        }
        // Beyond what was read nothing is counted.
        prop_assert!(foretold.ordinal == reached.ordinal || foretold.ordinal.is_none());
    }
}
