//! Deterministic simulation: the whole runtime over memory that fails, in paused time, all of it from one seed.
//!
//! `HIGHWATER_SIM_SEEDS` says how many seeds run, `HIGHWATER_SIM_FROM` which is the first, and `HIGHWATER_SIM_TRACE` prints a line
//! for each, or all lines where there is one. `cargo xtask sim` sets them.

#![expect(unreachable_pub, reason = "in a binary nothing is reachable, and `pub` is easier to read")]

mod actor;
mod audit;
mod mutants;
mod run;
mod server;
mod setup;
mod trace;
mod world;

use std::{env, str::FromStr};

/// What runs if nothing else is asked for.
const SEEDS: u64 = 2_000;

fn asked<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn the_guarantees_hold_under_every_seed() {
    let (seeds, from) = (asked("HIGHWATER_SIM_SEEDS").unwrap_or(SEEDS), asked("HIGHWATER_SIM_FROM").unwrap_or(0));
    let trace = asked::<u8>("HIGHWATER_SIM_TRACE").is_some_and(|trace| trace > 0);
    let failures = run::seeds(from..from.saturating_add(seeds), trace);
    let Some((_, first)) = failures.first() else { return };
    let others: Vec<_> = failures.iter().skip(1).take(20).map(|(seed, what)| one_line(*seed, what)).collect();
    panic!("{} of {seeds} seeds fail\n{}\n{first}", failures.len(), others.join("\n"));
}

fn one_line(seed: u64, failure: &str) -> String {
    format!("seed {seed}: {}", failure.lines().next().unwrap_or_default())
}
