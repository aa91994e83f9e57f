//! What a measured run is told, and how it measures itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Result, cli, list,
    measure::{Meter, Run},
};

pub const STREAM: &str = "bench";
/// The field that payloads are in.
pub const FIELD: &str = "d";

/// A server, and the process whose time is counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    pub url: String,
    pub pid: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Env {
    pub redis: Server,
    /// One more, for checkpoints that are elsewhere.
    pub other: Option<Server>,
    pub postgres: Option<Server>,
    /// For files.
    pub dir: PathBuf,
    pub stream: String,
    /// A name that no other run has.
    pub group: String,
    pub entries: u64,
    pub payload: usize,
    pub batch: usize,
    /// Of consumers, or of streams.
    pub many: u64,
    /// Entries a second, where the load is given.
    pub rate: u64,
}

impl Env {
    /// Begins to measure.
    pub fn start(&self) -> Result<Meter> {
        let servers = [Some(&self.redis), self.other.as_ref(), self.postgres.as_ref()];
        Meter::start(servers.into_iter().flatten().map(|server| server.pid).collect(), self.entries)
    }
}

/// Runs one scenario, and prints what it took.
pub async fn run(args: cli::Run) -> Result {
    let env: Env = serde_json::from_str(&args.env)?;
    let scenario = list::find(&args.scenario)?;
    let run: Run = (scenario.run)(env).await?;
    println!("{}", serde_json::to_string(&run)?);
    Ok(())
}
