//! Draws sequences, runs them, and shrinks what fails.

use std::{
    cell::RefCell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::test_runner::{
    Config, FailurePersistence, FileFailurePersistence, RngAlgorithm, RngSeed, TestCaseError, TestError,
    TestRunner,
};
use proptest_state_machine::ReferenceStateMachine;
use tokio::runtime::Runtime;

use super::{
    Stores,
    plan::{Op, Plan, Plans},
    world::World,
};
use crate::clock;

/// How long a sequence is.
const STEPS: std::ops::RangeInclusive<usize> = 30..=60;

/// Where sequences that failed are kept, from the folder of the crate; they run first from then on.
const REGRESSIONS: &str = "proptest-regressions/model.txt";

/// Sequences to run.
#[derive(Debug, Clone)]
pub struct Sequences {
    cases: u32,
    shrinks: u32,
    persistent: bool,
    seed: RngSeed,
    time: Time,
}

/// How time passes, and what may be asked for in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    /// Only a failure waits so long.
    pub(super) patience: Duration,
    /// Nothing happens while nobody waits.
    pub(super) is_paused: bool,
}

/// What was run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Sequences.
    pub sequences: u64,
    /// Steps in them.
    pub steps: u64,
    /// Calls of handlers.
    pub deliveries: u64,
}

impl Sequences {
    /// So many, or as many as the environment variable `HIGHWATER_MODEL_SEQUENCES` says.
    #[must_use]
    pub fn new(count: u32) -> Self {
        let asked = std::env::var("HIGHWATER_MODEL_SEQUENCES").ok().and_then(|count| count.parse().ok());
        Self {
            cases: asked.unwrap_or(count),
            shrinks: 400,
            persistent: true,
            seed: RngSeed::Random,
            time: Time { patience: Duration::from_secs(20), is_paused: false },
        }
    }

    /// Exactly so many, none of which is shrunk or kept: for what is expected to fail. They are the same each time, since what
    /// is broken may break another property first, rarely.
    #[must_use]
    pub fn expected_to_fail(count: u32) -> Self {
        Self { cases: count, shrinks: 0, persistent: false, seed: RngSeed::Fixed(1), ..Self::new(count) }
    }

    /// One of so many parts, which run side by side.
    #[must_use]
    pub fn divided(mut self, parts: u32) -> Self {
        self.cases = self.cases.div_ceil(parts.max(1));
        self
    }

    /// In paused time: it waits for less, and asks that every gap is told. In real time a trim may come while a read is under way,
    /// which nobody can tell.
    #[must_use]
    pub fn in_paused_time(mut self) -> Self {
        self.time = Time { patience: Duration::from_secs(3), is_paused: true };
        self
    }

    /// Runs them. `make` gives the stores for each, which may be the same ones: each uses names of its own. Over stores that do
    /// nothing outside of the runtime, its time may be paused, and [`in_paused_time`](Self::in_paused_time) says so.
    ///
    /// # Errors
    ///
    /// The property that does not hold, and the shortest sequence that shows it.
    pub fn run(&self, runtime: &Runtime, make: impl AsyncFn() -> Stores) -> Result<Summary, String> {
        let persistence: Option<Box<dyn FailurePersistence>> = self
            .persistent
            .then(|| Box::new(FileFailurePersistence::Direct(REGRESSIONS)) as Box<dyn FailurePersistence>);
        let config = Config {
            cases: self.cases,
            max_shrink_iters: self.shrinks,
            max_shrink_time: 20_000,
            failure_persistence: persistence,
            // Most of the time would go to the random numbers.
            rng_algorithm: RngAlgorithm::XorShift,
            rng_seed: self.seed,
            ..Config::default()
        };
        let summary = RefCell::new(Summary::default());
        let result = TestRunner::new(config).run(&Plans::sequential_strategy(STEPS), |(plan, ops, seen)| {
            let case = sequence(&plan, &ops, self.time, &make, |_| {
                // It is for what shrinks.
                if let Some(seen) = seen.as_ref().filter(|_| self.shrinks > 0) {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            });
            let deliveries = runtime.block_on(case).map_err(TestCaseError::fail)?;
            let mut summary = summary.borrow_mut();
            summary.sequences += 1;
            summary.steps += ops.len() as u64;
            summary.deliveries += deliveries;
            Ok(())
        });
        match result {
            Ok(()) => Ok(summary.into_inner()),
            Err(TestError::Fail(reason, (plan, ops, _))) => {
                Err(format!("{reason}\nwith {:?}\nafter {ops:?}", plan.setup))
            }
            Err(TestError::Abort(reason)) => Err(format!("no sequences: {reason}")),
        }
    }
}

async fn sequence(
    plan: &Plan,
    ops: &[Op],
    time: Time,
    make: &impl AsyncFn() -> Stores,
    seen: impl Fn(&Op),
) -> Result<u64, String> {
    let mut world = World::new(plan.setup.clone(), make().await, name(), time);
    // What the runtime does by chance is the same each time.
    fastrand::seed(plan.setup.seed);
    for op in ops {
        seen(op);
        world.step(op).await?;
    }
    world.finish().await?;
    Ok(world.deliveries)
}

/// The name of a stream that no other sequence uses, of whatever process. It does not come from the seed of a sequence, which
/// runs many times while it shrinks.
fn name() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(clock::random);
    format!("model:{process:016x}:{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
