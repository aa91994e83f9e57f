//! What can be asked for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures.
#[derive(Debug, Parser)]
#[command(name = "bench", disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Starts servers, runs everything in interleaved rounds, and writes tables and plots
    All(All),
    /// Prints the names of all groups and scenarios
    List,
    /// One measured run: prints what it took as a line of JSON
    #[command(hide = true)]
    Run(Run),
    /// Appends entries evenly
    #[command(hide = true)]
    Pace(Pace),
}

#[derive(Debug, Clone, Args)]
pub struct All {
    /// Only these groups, or scenarios whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// How often each scenario runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How many entries a throughput run reads; a multiple of 1,000
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub entries: u64,
    /// For how long a run with a given rate gets entries
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Where tables and plots go
    #[arg(long, default_value = "target/bench-report")]
    pub out: PathBuf,
    /// Repeat a run while other processes used more than a quarter of a core, up to three times
    #[arg(long)]
    pub quiet: bool,
    /// Also the longest streams: 10^7 entries take 1.5 GB of the server
    #[arg(long)]
    pub long: bool,
    /// Put the tables into this page, between its markers, and the plots into `plots` beside it
    #[arg(long)]
    pub page: Option<PathBuf>,
    #[arg(long)]
    pub redis_server: PathBuf,
    /// The folder of the programs
    #[arg(long)]
    pub postgres_bin: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Run {
    pub scenario: String,
    /// An `Env` as JSON
    pub env: String,
}

#[derive(Debug, Clone, Args)]
pub struct Pace {
    /// The file that says what
    pub told: PathBuf,
}
