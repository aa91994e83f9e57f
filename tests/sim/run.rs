//! Runs seeds, and says what they were like.

use std::{fmt, ops::Range, thread};

use tokio::runtime::Builder;

use crate::{audit::Counts, mutants::Mutant, setup::Setup, world::World};

/// What a run was like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub seed: u64,
    pub counts: Counts,
    /// Of the whole trace.
    pub hash: u64,
    lines: u64,
    setup: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { entries, calls, handled, duplicates, disruptions, fenced, letters } = self.counts;
        write!(
            f,
            "seed {:<6} {:<44} {entries:>4} entries {calls:>4} calls {handled:>4} handled {duplicates:>3} duplicates \
             {disruptions:>3} disruptions {fenced:>3} fenced {letters:>3} letters {:>5} lines, hash {:016x}",
            self.seed, self.setup, self.lines, self.hash
        )
    }
}

/// Runs all of these, on as many threads as there are processors, and returns those that fail.
pub fn seeds(range: Range<u64>, trace: bool) -> Vec<(u64, String)> {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let one = range.end - range.start == 1;
    let run = &|first: u64| {
        let mut failures = Vec::new();
        // Interleaved, so that all end at about the same time.
        for n in (first..range.end).step_by(usize::try_from(threads).unwrap_or(1)) {
            match seed(n, None, trace && one) {
                Ok(summary) if trace => println!("{summary}"),
                Ok(_) => {}
                Err(failure) => failures.push((n, failure)),
            }
        }
        failures
    };
    let mut failures: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            (range.start..range.start + threads).map(|first| scope.spawn(move || run(first))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a run ends with a verdict")).collect()
    });
    failures.sort();
    failures
}

/// How many seeds it takes until each mutant is caught, and by what.
pub fn mutants(seeds: u64) -> Vec<(Mutant, Option<(u64, String)>)> {
    let hunt = move |mutant| (0..seeds).find_map(|n| Some((n + 1, seed(n, Some(mutant), false).err()?)));
    thread::scope(|scope| {
        let hunts: Vec<_> =
            Mutant::ALL.iter().map(|&mutant| (mutant, scope.spawn(move || hunt(mutant)))).collect();
        let join =
            |(mutant, hunt): (_, thread::ScopedJoinHandle<'_, _>)| (mutant, hunt.join().expect("a verdict"));
        hunts.into_iter().map(join).collect()
    })
}

/// One run, the same for the same seed.
pub fn seed(seed: u64, mutant: Option<Mutant>, loud: bool) -> Result<Summary, String> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a test can start a runtime");
    let (verdict, summary, tail) = runtime.block_on(async {
        let mut world = World::new(seed, mutant, loud);
        let verdict = world.run().await;
        let setup = describe(world.setup());
        let audit = world.audit().lock();
        let (hash, lines) = (audit.trace.hash(), audit.trace.lines());
        (verdict, Summary { seed, counts: audit.counts, hash, lines, setup }, audit.trace.tail())
    });
    match verdict {
        Ok(()) => Ok(summary),
        Err(what) => Err(format!(
            "{what}\n{summary}\nreplay: cargo xtask sim --seeds 1 --from {seed} --trace\nthe last of it:\n{tail}"
        )),
    }
}

fn describe(setup: &Setup) -> String {
    let Setup { ownership, ordering, style, policy, one_store, fused, consumers, .. } = setup;
    let stores = match (one_store, fused) {
        (_, true) => "one step",
        (true, _) => "one store",
        _ => "two stores",
    };
    format!("{ownership:?} {ordering:?} {style:?} {policy:?} {stores} {consumers}")
}
