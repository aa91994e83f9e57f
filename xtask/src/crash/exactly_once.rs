//! Consumers whose effects are rows in the database of the checkpoint: killed, stalled past their lease, and deprived of
//! the database. Whatever happens, each entry has one row.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fastrand::Rng;
use highwater::backend::Inspect;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time;

use super::{
    consumer::Consumer,
    table::{Count, Table},
};
use crate::{
    Result,
    cli::{Client, Crash, Ownership, Place, Rows},
    place,
    support::process::Guarded,
};

/// Twice the default time to live: by then another one owns what a stalled process held.
const STALL_MAX_MS: u64 = 6_000;
/// Something must be committed within this, whatever has happened.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// What is left after the last round must be done in this.
const FINISH_LIMIT: Duration = Duration::from_secs(300);

/// Plays one ownership, and says whether each entry has one row.
pub async fn one(args: &Crash, ownership: Ownership, seed: u64) -> Result<bool> {
    let folder = TempDir::new()?;
    // Held until the end: the server ends with it.
    let (_server, place) = super::open_place(args.backend, folder.path())?;
    println!(
        "crash, transactional: stream in {:?} by {:?}, checkpoint and rows in {:?}, {ownership:?}, {} rounds, {} entries, \
         seed {seed}",
        args.backend, args.client, args.checkpoint, args.rounds, args.entries
    );
    let mut scene = Scene {
        args,
        ownership,
        place,
        table: Table::create(args.checkpoint, folder.path()).await?,
        random: Rng::with_seed(seed),
        consumers: Vec::new(),
        started: 0,
        seen: Seen::default(),
    };
    scene.play(seed).await?;
    let count = scene.table.count().await?;
    let holds = count.rows == args.entries && count.distinct == args.entries && count.last == args.entries;
    print(&scene.seen, &count, args.entries, holds);
    Ok(holds)
}

/// What was done, and what the consumers said.
#[derive(Debug, Default)]
struct Seen {
    kills: u32,
    stalls: u32,
    store_kills: u32,
    /// How often an owner was told that it is none any more.
    fenced: u64,
}

fn print(seen: &Seen, count: &Count, entries: u64, holds: bool) {
    println!("  rows, and entries with one   {}, {} (of {entries})", count.rows, count.distinct);
    println!("  missing                      {}", entries.saturating_sub(count.distinct));
    println!("  twice                        {}", count.rows - count.distinct);
    println!("  kills {}, stalls {}, kills of the store {}", seen.kills, seen.stalls, seen.store_kills);
    println!("  owners that were fenced      {}", seen.fenced);
    println!("  {}", if holds { "holds" } else { "DOES NOT HOLD" });
}

struct Scene<'a> {
    args: &'a Crash,
    ownership: Ownership,
    place: Place,
    table: Table,
    random: Rng,
    consumers: Vec<Consumer>,
    started: u32,
    seen: Seen,
}

impl Scene<'_> {
    async fn play(&mut self, seed: u64) -> Result {
        let mut producer = self.start_producer(seed)?;
        let mut grants = producer.child().stdin.take().ok_or("no standard input")?;
        // All at once, on an empty database.
        for _ in 0..self.args.consumers {
            let consumer = self.start_consumer()?;
            self.consumers.push(consumer);
        }
        let share = self.args.entries / u64::from(self.args.rounds + 1);
        for _ in 0..self.args.rounds {
            writeln!(grants, "{share}")?;
            self.round().await?;
        }
        writeln!(grants, "{}", self.args.entries - share * u64::from(self.args.rounds))?;
        drop(grants);
        self.finish(&mut producer).await
    }

    /// Something happens to one of the consumers, or to the store, in the midst of their work.
    async fn round(&mut self) -> Result {
        let before = self.table.count().await?.rows;
        let deadline = Instant::now() + PROGRESS_LIMIT;
        while self.table.count().await?.rows <= before {
            self.pause(deadline, "a row").await?;
        }
        time::sleep(Duration::from_micros(self.random.u64(0..300_000))).await;
        let victim = self.victim();
        match self.random.u8(0..10) {
            0..2 if self.args.kill_store => {
                self.seen.store_kills += 1;
                self.table.kill_and_restart()?;
            }
            0..4 => {
                self.seen.stalls += 1;
                self.consumers[victim].process.signal(Signal::STOP)?;
                time::sleep(Duration::from_millis(self.random.u64(0..STALL_MAX_MS))).await;
                self.consumers[victim].process.signal(Signal::CONT)?;
            }
            _ => {
                self.seen.kills += 1;
                let consumer = self.start_consumer()?;
                let dead = std::mem::replace(&mut self.consumers[victim], consumer);
                self.seen.fenced += dead.kill().await;
            }
        }
        Ok(())
    }

    /// The owner, if there is one, more often than the others.
    fn victim(&mut self) -> usize {
        self.consumers.iter_mut().for_each(Consumer::listen);
        let owner = self.consumers.iter().enumerate().max_by_key(|(_, consumer)| consumer.owner);
        let owner = owner.filter(|_| self.ownership == Ownership::Exclusive).map(|(nth, _)| nth);
        owner
            .filter(|_| self.random.u8(0..10) < 7)
            .unwrap_or_else(|| self.random.usize(0..self.consumers.len()))
    }

    /// A pause before the next look, while no consumer may end by itself.
    async fn pause(&mut self, deadline: Instant, awaited: &str) -> Result {
        for consumer in &mut self.consumers {
            if let Some(status) = consumer.process.try_wait()? {
                return Err(format!("a consumer ended by itself: {status}").into());
            }
        }
        if Instant::now() > deadline {
            return Err(format!("{awaited} does not come in time").into());
        }
        time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// Lets all that is left be done, and stops the consumers as a user would.
    async fn finish(&mut self, producer: &mut Guarded) -> Result {
        let deadline = Instant::now() + FINISH_LIMIT;
        while producer.try_wait()?.is_none() {
            self.pause(deadline, "the end of the producer").await?;
        }
        let produced = producer.wait()?;
        if !produced.success() {
            return Err(format!("the producer failed: {produced}").into());
        }
        let stream = place::open(&self.place).await?.stream;
        let state = stream.inspect(&Inspect::stream(self.place.stream.parse()?)).await?;
        let last = state.ok_or("the stream is gone")?.last_id;
        let subscription = highwater::Subscription::new(&self.place.stream, GROUP)?;
        let checkpoints = self.table.checkpoints().await?;
        while checkpoints.load(&subscription).await?.is_none_or(|c| c.position.watermark < last) {
            self.pause(deadline, "the last checkpoint").await?;
        }
        for consumer in std::mem::take(&mut self.consumers) {
            self.seen.fenced += consumer.stop().await?;
        }
        Ok(())
    }

    fn start_producer(&self, seed: u64) -> Result<Guarded> {
        let mut command = self.child("produce")?;
        command.args(["--seed", &seed.to_string()]).stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Guarded::spawn(&mut command)?)
    }

    fn start_consumer(&mut self) -> Result<Consumer> {
        self.started += 1;
        let mut command = self.child("transact")?;
        let ownership = match self.ownership {
            Ownership::Shared => "shared",
            Ownership::Exclusive => "exclusive",
        };
        let client = match self.args.client {
            Client::RedisRs => "redis-rs",
            Client::Fred => "fred",
        };
        let checkpoint = match self.args.checkpoint {
            Rows::Postgres => "postgres",
            Rows::Sqlite => "sqlite",
        };
        command.args(["--group", GROUP, "--ownership", ownership, "--client", client]);
        command.args(["--checkpoint", checkpoint, "--store", &self.table.at()]);
        command.args(["--run", &self.started.to_string()]);
        Consumer::start(&mut command)
    }

    fn child(&self, task: &str) -> Result<Command> {
        let mut command = Command::new(crate::this_program()?);
        command.args(["child", task]).args(place::arguments(&self.place));
        Ok(command)
    }
}

const GROUP: &str = "bookkeepers";
