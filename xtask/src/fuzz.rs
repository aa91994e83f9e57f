//! `cargo xtask fuzz`: every fuzz target for a while, from the corpus that is kept.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use crate::{Result, cargo, cli, root, support::process::Guarded};

/// Cases longer than this find nothing more, and are slow.
const BYTES_MAX: u32 = 512;

/// What it says when it ends, at most: the case and how it failed.
const LINES_MAX: usize = 60;

/// Runs the targets, as many at once as there are processors.
pub fn run(args: &cli::Fuzz) -> Result {
    let targets = targets(args.target.as_deref())?;
    provide()?;
    // Once for all. There is no unsafe code of ours that a sanitizer could watch, and without one it needs no nightly compiler.
    succeed(cargo().args(["fuzz", "build", "--sanitizer", "none"]))?;
    let (next, failed) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(target) = lock(&next).next() {
                    match fuzz(target, args.seconds) {
                        Ok(line) => println!("{target}: {line}"),
                        Err(error) => {
                            println!("{target}: {error}");
                            lock(&failed).push(target.as_str());
                        }
                    }
                }
            });
        }
    });
    let failed = lock(&failed).join(", ");
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {failed}").into()) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The names of the targets, or this one.
fn targets(only: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        names.extend(file?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort_unstable();
    match only {
        Some(only) if !names.iter().any(|name| name == only) => {
            Err(format!("no target `{only}`: there are {}", names.join(", ")).into())
        }
        Some(only) => Ok(vec![only.to_owned()]),
        None => Ok(names),
    }
}

/// Sees to it that `cargo fuzz` is there.
fn provide() -> Result {
    if cargo().args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
        return Ok(());
    }
    println!("there is no cargo-fuzz: installing it");
    succeed(cargo().args(["install", "--locked", "--quiet", "cargo-fuzz"])).map_err(|error| {
        format!("cargo-fuzz cannot be installed ({error}): run `cargo install cargo-fuzz`").into()
    })
}

fn succeed(command: &mut Command) -> Result {
    let status = Guarded::spawn(command)?.wait()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}

/// Runs one target and says how it went. What it finds on its way stays out of the kept corpus.
fn fuzz(target: &str, seconds: u64) -> Result<String> {
    let scratch = tempfile::tempdir()?;
    let (found, log) = (scratch.path().join("corpus"), scratch.path().join("log"));
    fs::create_dir(&found)?;
    let output = File::create(&log)?;
    let mut command = cargo();
    command
        .args(["fuzz", "run", "--sanitizer", "none", target])
        .args([&found, &root().join("fuzz/corpus").join(target)])
        .args(["--", "-print_final_stats=1"])
        .args([format!("-max_total_time={seconds}"), format!("-max_len={BYTES_MAX}")])
        .stdout(output.try_clone()?)
        .stderr(output);
    let status = Guarded::spawn(&mut command)?.wait()?;
    let said = String::from_utf8_lossy(&fs::read(Path::new(&log))?).into_owned();
    if status.success() {
        let executed = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        return match executed {
            Some(executed) => Ok(format!("{} cases in {seconds} s, all well", executed.trim())),
            None => Err(format!("it ran nothing:\n{}", tail(&said)).into()),
        };
    }
    Err(format!("{status}: `cargo fuzz run --sanitizer none {target} <file>` repeats it:\n{}", tail(&said))
        .into())
}

fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_built_and_has_a_corpus() {
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        let targets = targets(None).unwrap();
        assert!(targets.len() >= 5, "{targets:?}");
        for target in &targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(
                fs::read_dir(root().join("fuzz/corpus").join(target)).unwrap().next().is_some(),
                "{target}"
            );
        }
        assert!(super::targets(Some("nothing")).is_err());
    }
}
