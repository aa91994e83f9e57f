//! What can be asked for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The tasks of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Task {
    /// Provide servers, run all tests and the examples, and end with a line that counts them
    Test(Test),
    /// Dependencies, licences and short crash runs: what `.ci/run` runs beside cargo's own commands and `test`
    Ci,
    /// Build the images that the tests run in containers, from Debian's packages: as root, on a Debian
    Images,
    /// Fuzz targets for a while each, from the kept corpus, as many at once as there are processors; installs cargo-fuzz
    Fuzz(Fuzz),
    /// Conformance and random sequences over every combination of stores, as one table
    Matrix(Matrix),
    /// Run what the page of the guarantees names as the proof of one of them
    Guarantees(Guarantees),
    /// The simulation under many seeds, or under one of them again, or with planted bugs
    Sim(Sim),
    /// Kill a consumer process at random instants and show that nothing is lost
    Crash(Crash),
    /// Do everything to the servers that may happen to them, and show for each what is lost, and how long it takes
    Faults(Faults),
    /// Random faults for a while, over everything at once
    Soak(Soak),
    /// Throughput, latency, memory and processor time beside raw loops and peers, in one run
    Bench(Bench),
    #[command(hide = true, subcommand)]
    Child(Child),
}

#[derive(Debug, Clone, Args)]
pub struct Test {
    /// For `cargo test`, in place of everything: a filter, `-p`, `--test`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Guarantees {
    /// Which: 1 to 18
    #[arg(value_parser = clap::value_parser!(u32).range(1..=18))]
    pub number: u32,
}

#[derive(Debug, Clone, Args)]
pub struct Fuzz {
    /// Only this one; all, if it is not given
    pub target: Option<String>,
    /// For how many seconds each
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Matrix {
    /// How many sequences each combination runs
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub sequences: Option<u32>,
}

#[derive(Debug, Clone, Args)]
pub struct Sim {
    /// How many seeds run
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Print a line for each seed; of a single one, all that happens
    #[arg(long)]
    pub trace: bool,
    /// Plant bugs, and show how many seeds it takes until each is caught
    #[arg(long, conflicts_with_all = ["seeds", "from", "trace"])]
    pub mutants: bool,
    /// Run the optimized build
    #[arg(long)]
    pub release: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    Redis,
    Sqlite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ownership {
    Shared,
    Exclusive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ownerships {
    Shared,
    Exclusive,
    Both,
}

/// Where rows can be written together with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    Postgres,
    Sqlite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    RedisRs,
    Fred,
}

#[derive(Debug, Clone, Args)]
pub struct Crash {
    /// Where stream and checkpoint are
    #[arg(long, value_enum, default_value = "redis")]
    pub backend: Backend,
    /// Who reads the subscription
    #[arg(long, value_enum, default_value = "both")]
    pub ownership: Ownerships,
    /// How often the consumer is killed
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How many entries are appended meanwhile
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub entries: u64,
    /// Also destroy the Redis group at random instants
    #[arg(long)]
    pub destroy_group: bool,
    /// Also lose the Redis group's state at random instants, as a restored older snapshot would
    #[arg(long)]
    pub flush_group: bool,
    /// Also cut all connections to Redis at random instants
    #[arg(long)]
    pub cut_connections: bool,
    /// Handlers inside a transaction: consumer processes are killed and stalled, and their effects are rows
    #[arg(long)]
    pub transactional: bool,
    /// Where the checkpoint and the rows are
    #[arg(long, value_enum, default_value = "postgres", requires = "transactional")]
    pub checkpoint: Rows,
    /// Which client reads from Redis
    #[arg(long, value_enum, default_value = "redis-rs", requires = "transactional")]
    pub client: Client,
    /// How many consumer processes there are, all started at the same instant
    #[arg(long, default_value_t = 3, requires = "transactional", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub consumers: u32,
    /// Also kill the checkpoint's server and start it again at random instants
    #[arg(long, requires = "transactional")]
    pub kill_store: bool,
    /// The seed of all instants; random if it is not given, and printed
    #[arg(long)]
    pub seed: Option<u64>,
    /// Run the optimized build
    #[arg(long)]
    pub release: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Faults {
    /// Only the faults whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only this client
    #[arg(long, value_enum)]
    pub client: Option<Client>,
    #[arg(long, value_enum, default_value = "both")]
    pub ownership: Ownerships,
    /// Only where the checkpoint is here
    #[arg(long, value_enum)]
    pub store: Option<FaultStore>,
    /// The few rows of the short form
    #[arg(long)]
    pub short: bool,
    /// How many rows run side by side
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub jobs: u32,
}

/// Where the checkpoint of a row is, and what is written with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FaultStore {
    /// With the stream: one step
    Redis,
    /// In PostgreSQL: two steps
    Postgres,
    /// In PostgreSQL, and effects are rows beside it: one transaction
    Rows,
    /// With the stream, and effects are keys beside it: one transaction
    Keys,
}

#[derive(Debug, Clone, Args)]
pub struct Soak {
    /// For how many minutes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub minutes: u64,
    /// The seed of all faults and instants; random if it is not given, and printed
    #[arg(long)]
    pub seed: Option<u64>,
    /// Entries a second for each subscription
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(25..=10_000))]
    pub rate: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Bench {
    /// Without what users would pick instead: builds in half the time
    #[arg(long)]
    pub without_peers: bool,
    /// For the program in `bench/`: `--only`, `--rounds`, `--entries`, `--seconds`, `--out`, `--quiet`, `--long`, `--page`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// The processes that a task starts of itself.
#[derive(Debug, Clone, Subcommand)]
pub enum Child {
    /// Appends numbered entries, as many as each line of its standard input says
    Produce(Produce),
    /// Consumes until its standard input closes, and records each effect
    Consume(Consume),
    /// Consumes until its standard input closes, and writes each effect in the transaction of the checkpoint
    Transact(Transact),
    /// Runs one row of the table of faults
    Fault(FaultRow),
}

/// Where the entries are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    #[arg(long, value_enum)]
    pub backend: Backend,
    /// A URL, or the path of a file
    #[arg(long)]
    pub at: String,
    #[arg(long)]
    pub stream: String,
}

#[derive(Debug, Clone, Args)]
pub struct Produce {
    #[command(flatten)]
    pub place: Place,
    #[arg(long)]
    pub seed: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Consume {
    #[command(flatten)]
    pub place: Place,
    #[arg(long)]
    pub group: String,
    #[arg(long, value_enum)]
    pub ownership: Ownership,
    /// The file of effects, appended to
    #[arg(long)]
    pub effects: PathBuf,
    /// The number of this process, for that file
    #[arg(long)]
    pub run: u32,
}

#[derive(Debug, Clone, Args)]
pub struct Transact {
    #[command(flatten)]
    pub place: Place,
    #[arg(long, value_enum)]
    pub client: Client,
    #[arg(long, value_enum)]
    pub checkpoint: Rows,
    /// The URL of the database, or the path of a file
    #[arg(long)]
    pub store: String,
    #[arg(long)]
    pub group: String,
    #[arg(long, value_enum)]
    pub ownership: Ownership,
    /// The number of this process, for its rows
    #[arg(long)]
    pub run: u32,
}

#[derive(Debug, Clone, Args)]
pub struct FaultRow {
    #[arg(long)]
    pub name: String,
    #[arg(long, value_enum)]
    pub store: FaultStore,
    #[arg(long, value_enum)]
    pub client: Client,
    #[arg(long, value_enum)]
    pub ownership: Ownership,
    /// Print what was noted also where all holds
    #[arg(long)]
    pub notes: bool,
}
