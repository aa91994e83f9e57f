//! `cargo xtask test`.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, IsTerminal, stderr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result, build_dir, cargo, cli, report::Tally, root, servers::Servers, support::process::Guarded,
};

/// An example shows something and ends.
const EXAMPLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The crate whose tests run over other versions of the servers.
const VERSIONS: &str = "highwater-containers";

/// Provides servers, runs the tests and the examples, and says at the end how it went.
pub fn run(args: &cli::Test) -> Result {
    let mut servers = Servers::provide()?;
    // Seldom of use for some of the tests, and it may take minutes.
    if args.args.is_empty() || args.args.iter().any(|arg| arg.contains(VERSIONS)) {
        servers.provide_versions(|| compile(&args.args));
    }
    let mut tally = Tally::default();
    let mut complaints = Vec::new();
    if !cargo_test(&servers, &args.args, None, &mut tally)? {
        complaints.push("`cargo test` failed".to_owned());
    }
    if args.args.is_empty() {
        let daemon = servers.has_docker();
        for example in examples()? {
            if example.name == "testcontainers" && !daemon {
                tally.skip(&format!("skipped: example {}: no Docker daemon answers", example.name));
                continue;
            }
            match run_example(&servers, &example) {
                Ok(()) => tally.passed += 1,
                Err(error) => {
                    tally.failed += 1;
                    complaints.push(format!("example {}: {error}", example.name));
                }
            }
        }
    }
    drop(servers);
    println!();
    if !tally.matrix.is_empty() {
        println!("{}", tally.matrix);
    }
    tally.failures().for_each(|line| println!("{line}"));
    tally.skipped().for_each(|line| println!("{line}"));
    if in_ci() && tally.skips() > 0 {
        complaints.push("in CI nothing may be skipped".to_owned());
    }
    complaints.iter().for_each(|complaint| println!("{complaint}"));
    println!("{tally}");
    if complaints.is_empty() { Ok(()) } else { Err("not all tests passed".into()) }
}

/// The tests that speak of combinations of stores.
const MATRIX: &[&str] = &[
    "--package=highwater",
    "--all-features",
    "--lib",
    "--test=it",
    "--no-fail-fast",
    "--",
    "conformance::tests::memory::",
    "conformance::redis_",
    "conformance::fred_",
    "conformance::sqlite_",
    "conformance::postgres_",
    "matrix::",
];

/// Conformance and random sequences over every combination of stores, as one table.
pub fn matrix(args: &cli::Matrix) -> Result {
    let servers = Servers::provide()?;
    let mut tally = Tally::default();
    let tests: Vec<_> = MATRIX.iter().map(|arg| (*arg).to_owned()).collect();
    let passed = cargo_test(&servers, &tests, args.sequences, &mut tally)?;
    drop(servers);
    println!("\n{}", tally.matrix);
    tally.failures().for_each(|line| println!("{line}"));
    let missing = tally.matrix.missing();
    match (passed, missing.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => Err("not all tests passed".into()),
        (true, false) => Err(format!("not run: {}", missing.join(", ")).into()),
    }
}

/// Whether this is the run that decides.
pub fn in_ci() -> bool {
    env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1")
}

/// Compiles what will be tested. What is wrong with it shows when it is.
fn compile(args: &[String]) {
    let (mut command, _) = cargo_test_command(args);
    let _ = Guarded::spawn(command.arg("--no-run")).and_then(|mut child| child.wait());
}

/// The command, without what is for the tests themselves.
fn cargo_test_command(args: &[String]) -> (Command, &[String]) {
    let mut command = cargo();
    command.arg("test");
    let (ours, theirs) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[][..]),
    };
    if ours.is_empty() {
        command.args(["--workspace", "--all-features", "--no-fail-fast"]);
    }
    command.args(ours);
    (command, theirs)
}

fn cargo_test(servers: &Servers, args: &[String], sequences: Option<u32>, tally: &mut Tally) -> Result<bool> {
    let (mut command, theirs) = cargo_test_command(args);
    command.args(["--", "--show-output"]).args(theirs);
    if stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    servers.tell(&mut command);
    if let Some(sequences) = sequences {
        command.env("HIGHWATER_MODEL_SEQUENCES", sequences.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Guarded::spawn(&mut command)?;
    let output = child.child().stdout.take().ok_or("no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if tally.take(&line) {
            println!("{line}");
        }
    }
    Ok(child.wait()?.success())
}

#[derive(Debug)]
struct Example {
    name: String,
    /// How often it runs in the same folder: to show that it goes on where it was.
    times: u32,
}

/// All examples of the workspace: they must not only compile.
fn examples() -> Result<Vec<Example>> {
    let backends = fs::read_dir(root().join("backends"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let folders = [root().to_owned()].into_iter().chain(backends).map(|crate_| crate_.join("examples"));
    let mut names = BTreeMap::new();
    for folder in folders.filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(folder)? {
            if let Some(name) = example_name(&entry?.path()) {
                names.insert(name, ());
            }
        }
    }
    let times = |name: &str| if name == "quickstart" { 2 } else { 1 };
    Ok(names.into_keys().map(|name| Example { times: times(&name), name }).collect())
}

/// A file, or a folder with a `main.rs`.
fn example_name(path: &Path) -> Option<String> {
    let is_example = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file();
    is_example.then(|| path.file_stem().map(|name| name.to_string_lossy().into_owned()))?
}

/// Runs what `cargo test` has built, in a folder of its own.
fn run_example(servers: &Servers, example: &Example) -> Result {
    let program: PathBuf = build_dir()?.join("examples").join(&example.name);
    let folder = tempfile::TempDir::new()?;
    for time in 1..=example.times {
        let start = Instant::now();
        let output = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(&program);
        command.current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(output.reopen()?).stderr(output.reopen()?);
        servers.tell(&mut command);
        let result = finish(&mut command);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!(
            "example {} ({time} of {}) ... {verdict}, {:.1?}",
            example.name,
            example.times,
            start.elapsed()
        );
        if result.is_err() {
            println!("{}", fs::read_to_string(output.path())?);
        }
        result?;
    }
    Ok(())
}

fn finish(command: &mut Command) -> Result {
    let mut child = Guarded::spawn(command)?;
    let deadline = Instant::now() + EXAMPLE_TIMEOUT;
    while Instant::now() < deadline {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(status.to_string().into()),
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(format!("did not end within {} s", EXAMPLE_TIMEOUT.as_secs()).into())
}
