//! What the library costs beside raw loops and beside what one would pick instead: `cargo xtask bench`.
//!
//! One process starts the servers and compares; each measured run is a child of it, so that memory and processor time are
//! its own.

#![expect(clippy::disallowed_methods, reason = "measures real time, and waits in it")]

mod campaign;
mod cli;
mod env;
mod histogram;
mod late;
mod list;
mod measure;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod plot;
mod produce;
mod raw;
mod stage;
mod support;
mod sweep;
mod table;
mod verdict;

use std::{error, process::ExitCode};

use clap::Parser;

/// Threads of glibc's allocator is what users get; the other one is to be asked for.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a run may fail with: shown to whoever ran it.
type Result<T = (), E = Box<dyn error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let done = match cli::Cli::parse().task {
        cli::Task::All(args) => campaign::run(&args),
        cli::Task::List => list::print(),
        cli::Task::Run(args) => in_runtime(env::run(args)),
        cli::Task::Pace(args) => in_runtime(late::pace(args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// On a worker and not on the thread that blocks: each wake of that one crosses threads, which would be measured.
fn in_runtime(task: impl Future<Output = Result> + Send + 'static) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(runtime.spawn(task))?
}
