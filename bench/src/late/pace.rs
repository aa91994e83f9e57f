//! Appends entries that carry the time, one by one, evenly: in a process of its own, whose time is not the client's.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use redis::{cmd, pipe};
use serde::{Deserialize, Serialize};
use tokio::time;

use crate::{
    Result, cli,
    env::{Env, FIELD},
    measure::now,
    raw,
    support::process::Guarded,
};

/// How many digits a time has.
pub const DIGITS: usize = 20;

#[derive(Debug, Serialize, Deserialize)]
struct Told {
    env: Env,
    streams: Vec<String>,
    entries: u64,
}

/// The process.
pub struct Pacer(Guarded);

impl Pacer {
    pub fn start(env: &Env, streams: &[String], entries: u64) -> Result<Self> {
        // By file: ten thousand names are too long for an argument.
        let path = env.dir.join(format!("{}-pace.json", env.group));
        let told = Told { env: env.clone(), streams: streams.to_vec(), entries };
        std::fs::write(&path, serde_json::to_string(&told)?)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("pace").arg(path).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(Guarded::spawn(&mut command)?))
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub fn wait(&mut self) -> Result {
        if self.0.wait()?.success() { Ok(()) } else { Err("the producer failed".into()) }
    }
}

/// One entry to each stream.
pub async fn append_first(env: &Env, streams: &[String]) -> Result {
    let mut redis = raw::connect(env).await?;
    for some in streams.chunks(1_000) {
        let mut pipe = pipe();
        for stream in some {
            pipe.cmd("XADD").arg(stream).arg("*").arg(FIELD).arg(payload(env)).ignore();
        }
        pipe.query_async::<()>(&mut redis).await?;
    }
    Ok(())
}

/// Appends to the streams in turn.
pub async fn pace(args: cli::Pace) -> Result {
    let told: Told = serde_json::from_str(&std::fs::read_to_string(args.told)?)?;
    let mut redis = raw::connect(&told.env).await?;
    let mut ticks = time::interval(Duration::from_secs(1) / u32::try_from(told.env.rate)?);
    for stream in told.streams.iter().cycle().take(usize::try_from(told.entries)?) {
        ticks.tick().await;
        let mut append = cmd("XADD");
        append.arg(stream).arg("*").arg(FIELD).arg(payload(&told.env));
        append.query_async::<()>(&mut redis).await?;
    }
    Ok(())
}

/// The time, and as many bytes in all as asked.
fn payload(env: &Env) -> String {
    format!("{:0DIGITS$}{}", now(), "x".repeat(env.payload.saturating_sub(DIGITS)))
}
