//! The project's tasks: `cargo xtask --help`.

#![expect(clippy::disallowed_methods, reason = "tasks measure real time, and wait in it")]
#![expect(unreachable_pub, reason = "in a binary nothing is reachable, and `pub` is easier to read")]

mod bench;
mod ci;
mod cli;
#[cfg(feature = "runs")]
mod crash;
#[cfg(feature = "runs")]
mod faults;
mod fuzz;
mod guarantees;
mod matrix;
#[cfg(feature = "runs")]
mod place;
mod report;
mod runs;
mod servers;
mod sim;
#[cfg(feature = "runs")]
mod soak;
mod support;
mod test;

use std::{
    env, error, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Parser;

use crate::cli::{Cli, Task};

/// What a task may fail with: shown to whoever ran it, and to nobody else.
type Result<T = ()> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let task = Cli::parse().task;
    let done = match task {
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Ci => ci::run(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Images => servers::images(),
        Task::Matrix(args) => test::matrix(&args),
        Task::Guarantees(args) => guarantees::run(&args),
        Task::Sim(args) => sim::run(&args),
        other => runs::run(other),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// `cargo`, in the root of the repository.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// This very program, for another process of it: also when a build has put another one in its place meanwhile.
fn this_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { env::current_exe() }
}

/// The folder of the build that this program is from: `target/debug`.
fn build_dir() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.parent().ok_or(io::ErrorKind::NotFound)?.to_owned())
}
