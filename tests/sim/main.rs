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

use std::{collections::BTreeSet, env, process::Command, str::FromStr, thread};

/// What runs if nothing else is asked for.
const SEEDS: u64 = 2_000;

/// Seeds within which each mutant must be found: many times as many as it takes, so that it never depends on luck.
const MUTANT_SEEDS: u64 = 1_000;

fn asked<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn the_guarantees_hold_under_every_seed() {
    let (seeds, from) =
        (asked("HIGHWATER_SIM_SEEDS").unwrap_or(SEEDS), asked("HIGHWATER_SIM_FROM").unwrap_or(0));
    let trace = asked::<u8>("HIGHWATER_SIM_TRACE").is_some_and(|trace| trace > 0);
    let failures = run::seeds(from..from.saturating_add(seeds), trace);
    let Some((_, first)) = failures.first() else { return };
    let others: Vec<_> = failures.iter().skip(1).take(20).map(|(seed, what)| one_line(*seed, what)).collect();
    panic!("{} of {seeds} seeds fail\n{}\n{first}", failures.len(), others.join("\n"));
}

fn one_line(seed: u64, failure: &str) -> String {
    // What follows a colon in the line is what was seen, at length.
    let line = failure.lines().next().unwrap_or_default();
    format!("seed {seed}: {}", line.char_indices().nth(110).map_or(line, |(end, _)| &line[..end]))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..100 {
        // Each in a thread of its own, which has another state of all that a thread has.
        let [one, other] = [(); 2].map(|()| thread::spawn(move || run::seed(seed, None, false)));
        assert_eq!(one.join().unwrap(), other.join().unwrap());
    }
}

#[test]
fn the_same_seed_gives_the_same_run_in_another_process() {
    const SOME: u64 = 20;
    let mut other = Command::new(env::current_exe().unwrap());
    other.args(["--exact", "the_guarantees_hold_under_every_seed", "--nocapture"]);
    other
        .env("HIGHWATER_SIM_SEEDS", SOME.to_string())
        .env("HIGHWATER_SIM_FROM", "0")
        .env("HIGHWATER_SIM_TRACE", "1");
    let output = other.output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let theirs: BTreeSet<_> =
        output.lines().filter(|line| line.starts_with("seed ")).map(str::to_owned).collect();
    let ours = (0..SOME).map(|seed| run::seed(seed, None, false).unwrap().to_string()).collect();
    assert_eq!(theirs, ours);
}

#[test]
fn each_mutant_is_caught() {
    println!("{:<20} {:>5}  what it broke", "mutant", "seeds");
    let mut missed = Vec::new();
    for (mutant, caught) in run::mutants(MUTANT_SEEDS) {
        let name = format!("{mutant:?}");
        match caught {
            Some((seeds, what)) => {
                println!("{name:<20} {seeds:>5}  {}", one_line(seeds - 1, &what));
                if !mutant.breaks().iter().any(|property| what.starts_with(&format!("{property}:"))) {
                    missed.push(format!(
                        "{name} breaks {:?}, and another property failed: {what}",
                        mutant.breaks()
                    ));
                }
            }
            None => missed.push(format!("{name} was not caught within {MUTANT_SEEDS} seeds")),
        }
    }
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}
