//! Properties of the machine and its tracker, over random completions, failures, crashes, redeliveries and lost replies.
//!
//! The entries that a handler has succeeded with are what the guarantees are held against.

mod world;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use self::world::{Case, World, any_case};
use super::tracker::Mutant;

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
    for (mutant, guarantee) in [
        (Mutant::HighestSettled, "G2"),
        (Mutant::ForgetAhead, "G5"),
        (Mutant::AdmitTwice, "G5"),
        (Mutant::OffByOne, "G1"),
        (Mutant::FallsBack, "G3"),
    ] {
        // The same cases each time, so that this test does not depend on luck.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let config =
            Config { cases: 5_000, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = runner.run(&any_case(false), |case| holds(case, Some(mutant)));
        let Err(TestError::Fail(reason, _)) = result else { panic!("{mutant:?} was not caught: {result:?}") };
        assert!(reason.message().starts_with(guarantee), "{mutant:?}: {reason}");
    }
}
