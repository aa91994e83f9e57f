//! `cargo xtask ci`: the steps of `.ci/run` that are more than one command of cargo.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{Result, cargo, support::process::Guarded};

const DRIVERS: &[&str] =
    &["redis", "fred", "sqlx", "sqlx-core", "rusqlite", "libsqlite3-sys", "tokio-postgres"];

/// A step: its name and what it does.
type Step = (&'static str, fn() -> Result);

const STEPS: &[Step] = &[
    ("dependencies", dependencies),
    ("licences", licences),
    ("benchmarks, without peers", bench),
    ("fuzzing, a minute each", || task(&["fuzz"])),
    ("crash on redis, short", || crash(&["--backend", "redis"])),
    ("crash on sqlite, short", || crash(&["--backend", "sqlite"])),
    ("transactions, short", || {
        let rounds = ["crash", "--transactional", "--rounds", "4", "--entries", "4000"];
        task(&rounds)?;
        task(&[&rounds[..], &["--client", "fred", "--kill-store", "--ownership", "exclusive"]].concat())
    }),
    ("faults, short", || task(&["faults", "--short"])),
    ("lost groups, short", || {
        crash(&["--backend", "redis", "--ownership", "shared", "--destroy-group", "--flush-group"])
    }),
];

/// Runs all steps, also after one has failed, so that one run shows all there is to correct.
pub fn run() -> Result {
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step();
        if let Err(error) = &result {
            println!("{name}: {error}");
            failed.push(*name);
        }
        lines.push(line(name, result.is_ok(), start.elapsed()));
    }
    println!("\n{}", lines.join("\n"));
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

fn line(name: &str, ok: bool, took: Duration) -> String {
    format!("{:<26} {:<6} {:>6.1} s", name, if ok { "ok" } else { "FAILED" }, took.as_secs_f64())
}

fn succeed(command: &mut Command) -> Result {
    let status = Guarded::spawn(command)?.wait()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}

/// Another task, as its own process.
fn task(args: &[&str]) -> Result {
    succeed(Command::new(crate::this_program()?).current_dir(crate::root()).args(args))
}

/// A crash run of a quarter of a minute. The long form is for whoever changes what it proves.
fn crash(args: &[&str]) -> Result {
    task(&[&["crash", "--rounds", "4", "--entries", "12000"], args].concat())
}

/// Who may depend on whom: the core on no driver, no backend on another's.
fn dependencies() -> Result {
    for (package, allowed) in [
        ("highwater", &[][..]),
        ("highwater-postgres", &["sqlx", "sqlx-core"][..]),
        ("highwater-redis", &["redis", "fred"][..]),
        ("highwater-sqlite", &["sqlx", "sqlx-core", "libsqlite3-sys"][..]),
    ] {
        let mut tree = cargo();
        tree.args(["tree", "--edges", "normal", "--prefix", "none", "--all-features", "--package", package]);
        let output = tree.output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let tree = String::from_utf8_lossy(&output.stdout);
        let wrong: Vec<_> = drivers_in(&tree).filter(|driver| !allowed.contains(driver)).collect();
        if !wrong.is_empty() {
            return Err(format!("{package} must not depend on {}", wrong.join(", ")).into());
        }
        println!("{package}: ok");
    }
    Ok(())
}

fn drivers_in(tree: &str) -> impl Iterator<Item = &str> {
    tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| DRIVERS.contains(name))
}

/// The benchmarks still compile. What the peers depend on takes minutes to build, and nothing of ours can break it.
fn bench() -> Result {
    let folder = crate::root().join("bench");
    succeed(cargo().current_dir(&folder).args(["fmt", "--check"]))?;
    let mut clippy = cargo();
    clippy.current_dir(folder).env("CARGO_TARGET_DIR", crate::root().join("target/bench"));
    clippy.args(["clippy", "--locked", "--all-targets", "--no-default-features", "--", "-D", "warnings"]);
    succeed(&mut clippy)
}

fn licences() -> Result {
    // Building it takes longer than all the rest: it is used where it is, and its absence is said.
    if !cargo().args(["deny", "--version"]).output()?.status.success() {
        println!("note: no cargo-deny here, so bans, licences and sources were not checked");
        return Ok(());
    }
    succeed(cargo().args([
        "deny",
        "--workspace",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_found_by_their_whole_name() {
        let tree = "highwater-redis v0.1.0 (path)\nredis v1.8.1\nredis-protocol v6.0.0\ntokio v1.54.1 (*)";
        assert_eq!(drivers_in(tree).collect::<Vec<_>>(), ["redis"]);
    }
}
