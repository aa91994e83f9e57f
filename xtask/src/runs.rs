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
        let release = matches!(&task, Task::Crash(crash) if crash.release);
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
    use crate::{
        Result,
        cli::{Child, Task},
        crash, faults, soak,
    };

    pub fn run(task: Task) -> Result {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        // On a worker and not on the thread that blocks: each wake of that one crosses threads.
        runtime.block_on(runtime.spawn(dispatch(task)))?
    }

    async fn dispatch(task: Task) -> Result {
        match task {
            Task::Crash(args) => crash::run(&args).await,
            Task::Faults(args) => faults::run(&args).await,
            Task::Soak(args) => soak::run(&args).await,
            Task::Child(Child::Produce(args)) => crash::produce(&args).await,
            Task::Child(Child::Consume(args)) => crash::consume(&args).await,
            Task::Child(Child::Transact(args)) => crash::transact(&args).await,
            Task::Child(Child::Fault(args)) => faults::row(&args).await,
            _ => Err("this task runs elsewhere".into()),
        }
    }
}
