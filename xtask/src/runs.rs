//! The tasks that run the library. They need its crates, which a plain `cargo xtask` leaves out to start quickly.

use crate::{Result, cli::Task};

/// Runs the task here if this program was built for that, else builds the one that is and hands over.
pub fn run(task: Task) -> Result {
    imp::run(task)
}

#[cfg(not(feature = "runs"))]
mod imp {
    use std::{env, os::unix::process::CommandExt, process::Command};

    use crate::{Result, build_dir, cargo, cli::Task};

    pub fn run(task: Task) -> Result {
        let release = match &task {
            Task::Bench(_) | Task::Latency(_) => true,
            Task::Crash(crash) => crash.release,
            _ => false,
        };
        let profile = if release { "release" } else { "dev" };
        // The features of the whole workspace, so that what the tests have built is used.
        let build =
            ["build", "--quiet", "--workspace", "--all-features", "--bin", "xtask", "--profile", profile];
        if !cargo().args(build).status()?.success() {
            return Err("the build failed".into());
        }
        let builds = build_dir()?;
        let builds = builds.parent().ok_or("no folder of builds")?;
        let program = builds.join(if release { "release" } else { "debug" }).join("xtask");
        Err(Command::new(program).args(env::args_os().skip(1)).exec().into())
    }
}

#[cfg(feature = "runs")]
mod imp {
    use crate::{Result, cli::Task};

    pub fn run(task: Task) -> Result {
        Err(format!("not yet: {task:?}").into())
    }
}
