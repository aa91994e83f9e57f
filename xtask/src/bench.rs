//! `cargo xtask bench`: builds the workspace in `bench/`, whose dependencies are none of ours, and hands over.

use std::process::Command;

use crate::{Result, cargo, cli, root, servers, support::process::Guarded};

/// Runs it with what was asked for, and the programs of the servers.
pub fn run(args: &cli::Bench) -> Result {
    let builds = root().join("target/bench");
    let mut build = vec!["build", "--release", "--locked"];
    if args.without_peers {
        build.extend(["--no-default-features"]);
    }
    let mut cargo = cargo();
    cargo.current_dir(root().join("bench")).env("CARGO_TARGET_DIR", &builds).args(&build);
    if !Guarded::spawn(&mut cargo)?.wait()?.success() {
        return Err("it does not build; if a peer is the reason, leave them out: `--without-peers`".into());
    }
    let mut bench = Command::new(builds.join("release/highwater-bench"));
    bench.current_dir(root()).arg("all").args(&args.args);
    bench.arg("--redis-server").arg(servers::redis_program()?);
    bench.arg("--postgres-bin").arg(servers::postgres_folder()?);
    if Guarded::spawn(&mut bench)?.wait()?.success() { Ok(()) } else { Err("a run failed: see above".into()) }
}
