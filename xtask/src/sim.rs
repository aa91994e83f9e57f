//! `cargo xtask sim`: the simulation in `tests/sim`, which needs no server.

use crate::{Result, cargo, cli, support::process::Guarded};

/// Runs it under the seeds that were asked for, or with planted bugs.
pub fn run(args: &cli::Sim) -> Result {
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "highwater", "--test", "sim"]);
    if args.release {
        command.arg("--release");
    }
    let test = if args.mutants { "each_mutant_is_caught" } else { "the_guarantees_hold_under_every_seed" };
    command.args(["--", "--exact", test, "--nocapture"]);
    command.env("HIGHWATER_SIM_SEEDS", args.seeds.to_string());
    command.env("HIGHWATER_SIM_FROM", args.from.to_string());
    command.env("HIGHWATER_SIM_TRACE", u8::from(args.trace).to_string());
    if Guarded::spawn(&mut command)?.wait()?.success() {
        println!(
            "{}",
            if args.mutants { "each was caught".to_owned() } else { format!("{} seeds: ok", args.seeds) }
        );
        return Ok(());
    }
    Err("the simulation has found something".into())
}
