//! The scene: processes that are started, killed, and deprived of their group.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use highwater::{
    EntryId, ErrorKind, Position, Subscription,
    backend::{Inspect, ReadPending},
};
use tokio::{sync::mpsc, time};

use super::{
    audit::{Fault, Sighting},
    child::{NAME, SETTLED},
    observer::{Eyes, Observer},
};
use crate::{
    Result,
    cli::{Crash, Ownership, Place},
    place,
    support::{process::Guarded, resp::Connection, server::RedisServer},
};

/// Longer than any restart may take, so that a slow one is measured and reported, not cut off.
const RESTART_LIMIT: Duration = Duration::from_secs(20);
/// What is left after the last kill must be done in this.
const FINISH_LIMIT: Duration = Duration::from_secs(300);
/// The default of `in_flight_entries_max`: what a consumer may hold when its group is lost.
const IN_FLIGHT_MAX: u64 = 4_096;

/// One run with one ownership.
#[derive(Debug)]
pub struct Scene<'a> {
    pub args: &'a Crash,
    pub ownership: Ownership,
    pub seed: u64,
    pub place: Place,
    pub group: String,
    /// The file that the handlers append to.
    pub effects: PathBuf,
    /// The server, if it is one that can be disturbed.
    pub server: Option<&'a RedisServer>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sightings: Vec<Sighting>,
    pub faults: Vec<Fault>,
    /// From the start of a process to the first settled entry.
    pub recoveries: Vec<Duration>,
    pub kills: u32,
    /// How often something was taken from a consumer that worked.
    pub disturbances: u32,
}

impl Scene<'_> {
    /// Plays all rounds, and lets the last process finish.
    pub async fn play(&self) -> Result<Outcome> {
        File::create(&self.effects)?;
        let opened = place::open(&self.place).await?;
        let observer = Observer::start(Eyes {
            checkpoints: opened.checkpoints,
            subscription: self.subscription()?,
            effects: self.effects.clone(),
        });
        let mut producer = self.start_producer()?;
        let mut grants = producer.child().stdin.take().ok_or("no standard input")?;
        let mut random = Rng::with_seed(self.seed);
        let mut outcome = Outcome::default();
        let share = self.args.entries / u64::from(self.args.rounds + 1);
        for round in 1..=self.args.rounds {
            writeln!(grants, "{share}")?;
            self.round(round, &observer, &mut random, &mut outcome).await?;
        }
        writeln!(grants, "{}", self.args.entries - share * u64::from(self.args.rounds))?;
        drop(grants);
        self.finish(&observer, &mut producer).await?;
        outcome.sightings = observer.finish().await?;
        Ok(outcome)
    }

    /// Starts a consumer and kills it: mostly in the midst of its work, sometimes while it starts.
    async fn round(
        &self,
        round: u32,
        observer: &Observer,
        random: &mut Rng,
        outcome: &mut Outcome,
    ) -> Result {
        let start = Instant::now();
        let mut consumer = self.start_consumer(round)?;
        if random.u8(..) < 50 {
            time::sleep(Duration::from_millis(random.u64(0..1_500))).await;
        } else {
            consumer.settled(RESTART_LIMIT).await?;
            outcome.recoveries.push(start.elapsed());
            time::sleep(Duration::from_micros(random.u64(0..300_000))).await;
            self.disturb(observer, random, outcome).await?;
            time::sleep(Duration::from_micros(random.u64(0..300_000))).await;
        }
        if let Some(status) = consumer.process.try_wait()? {
            return Err(format!("consumer {round} ended by itself: {status}").into());
        }
        let name = consumer.kill().await;
        outcome.kills += 1;
        outcome.faults.push(match self.ownership {
            Ownership::Exclusive => Fault::Unsaved { seen: observer.look().await?, in_flight: 0 },
            Ownership::Shared => Fault::Pending { run: round, ids: self.pending(name).await? },
        });
        Ok(())
    }

    /// What is pending for a dead consumer. None, if it died before it had a name, or its group was lost.
    async fn pending(&self, name: Option<String>) -> Result<HashSet<EntryId>> {
        const ALL: usize = 1_000_000;
        let Some(name) = name else { return Ok(HashSet::new()) };
        let request = ReadPending::new(self.subscription()?, name.try_into()?, EntryId::ZERO, ALL);
        match place::open(&self.place).await?.stream.read_pending(&request).await {
            Ok(pending) => Ok(pending.into_iter().map(|entry| entry.id).collect()),
            Err(error) if error.kind() == ErrorKind::Missing => Ok(HashSet::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn subscription(&self) -> Result<Subscription> {
        Ok(Subscription::new(&self.place.stream, &self.group)?)
    }

    /// Takes something from a consumer that works: its group, the group's memory of where it was, its
    /// connections.
    async fn disturb(&self, observer: &Observer, random: &mut Rng, outcome: &mut Outcome) -> Result {
        let (stream, group) = (self.place.stream.as_str(), self.group.as_str());
        let destroy = ["XGROUP", "DESTROY", stream, group];
        let recreate = ["XGROUP", "CREATE", stream, group, "0"];
        let mut choices: Vec<Vec<&[&str]>> = Vec::new();
        if self.args.destroy_group && self.ownership == Ownership::Shared {
            choices.push(vec![&destroy]);
        }
        if self.args.flush_group && self.ownership == Ownership::Shared {
            choices.push(vec![&["MULTI"], &destroy, &recreate, &["EXEC"]]);
        }
        if self.args.cut_connections {
            choices.push(Vec::new());
        }
        let (Some(server), Some(choice)) = (self.server, random.choice(&choices)) else { return Ok(()) };
        outcome.faults.push(Fault::Unsaved { seen: observer.look().await?, in_flight: IN_FLIGHT_MAX });
        outcome.disturbances += 1;
        let mut connection = server.connect()?;
        if choice.is_empty() {
            return cut_readers(&mut connection);
        }
        for command in choice {
            let reply = connection.run(command)?;
            if reply.is_error() {
                return Err(format!("{}: {reply}", command.join(" ")).into());
            }
        }
        Ok(())
    }

    /// Lets a last consumer do all that is left, and stops it as a user would.
    async fn finish(&self, observer: &Observer, producer: &mut Guarded) -> Result {
        let mut consumer = self.start_consumer(self.args.rounds + 1)?;
        let deadline = Instant::now() + FINISH_LIMIT;
        let exited = |child: &mut Guarded| child.try_wait();
        let produced = loop {
            if let Some(status) = exited(producer)? {
                break status;
            }
            past(deadline, "the producer does not end")?;
            time::sleep(Duration::from_millis(20)).await;
        };
        if !produced.success() {
            return Err(format!("the producer failed: {produced}").into());
        }
        let last = self.last_id().await?;
        while observer.look().await?.position.watermark < last.watermark {
            if let Some(status) = exited(&mut consumer.process)? {
                return Err(format!("the last consumer ended by itself: {status}").into());
            }
            past(deadline, "the last consumer does not come to the end")?;
            time::sleep(Duration::from_millis(20)).await;
        }
        drop(consumer.process.child().stdin.take());
        let status = consumer.process.wait()?;
        while let Some(line) = consumer.lines.recv().await {
            if line != SETTLED && !line.starts_with(NAME) {
                println!("  the last process             {line}");
            }
        }
        if status.success() { Ok(()) } else { Err(format!("the last consumer failed: {status}").into()) }
    }

    async fn last_id(&self) -> Result<Position> {
        let opened = place::open(&self.place).await?;
        let stream = self.place.stream.parse()?;
        let state = opened.stream.inspect(&Inspect::stream(stream)).await?;
        Ok(Position::at(state.ok_or("the stream is gone")?.last_id))
    }

    fn start_producer(&self) -> Result<Guarded> {
        let mut command = self.child("produce")?;
        command.args(["--seed", &self.seed.to_string()]).stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Guarded::spawn(&mut command)?)
    }

    fn start_consumer(&self, run: u32) -> Result<ConsumerProcess> {
        let mut command = self.child("consume")?;
        let ownership = match self.ownership {
            Ownership::Shared => "shared",
            Ownership::Exclusive => "exclusive",
        };
        command.args(["--group", &self.group, "--ownership", ownership, "--run", &run.to_string()]);
        command.arg("--effects").arg(&self.effects);
        ConsumerProcess::start(command.stdin(Stdio::piped()))
    }

    fn child(&self, task: &str) -> Result<Command> {
        let mut command = Command::new(crate::this_program()?);
        command.args(["child", task]).args(place::arguments(&self.place));
        Ok(command)
    }
}

/// Cuts the connections that read or settle. The producer's and the observer's do neither, and must not be cut: an append
/// whose reply is lost would have to be taken for a duplicate.
fn cut_readers(connection: &mut Connection) -> Result {
    let clients = connection.run(&["CLIENT", "LIST", "TYPE", "normal"])?.text();
    for client in clients.lines() {
        let field = |name: &str| client.split(' ').find_map(|field| field.strip_prefix(name));
        let command = field("cmd=").unwrap_or_default();
        if let Some(id) = field("id=")
            && ["xreadgroup", "xread", "evalsha", "eval"].contains(&command)
        {
            connection.run(&["CLIENT", "KILL", "ID", id])?;
        }
    }
    Ok(())
}

/// A consumer and what it says.
#[derive(Debug)]
struct ConsumerProcess {
    process: Guarded,
    lines: mpsc::UnboundedReceiver<String>,
    name: Option<String>,
}

impl ConsumerProcess {
    fn start(command: &mut Command) -> Result<Self> {
        let mut process = Guarded::spawn(command.stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().ok_or("no output")?;
        let (send, lines) = mpsc::unbounded_channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(io::Result::ok);
            lines.for_each(|line| drop(send.send(line)));
        });
        Ok(Self { process, lines, name: None })
    }

    /// Waits until it says that its first entry is settled.
    async fn settled(&mut self, limit: Duration) -> Result {
        let heard = async {
            while let Some(line) = self.lines.recv().await {
                match line.strip_prefix(NAME) {
                    Some(name) => self.name = Some(name.to_owned()),
                    None if line == SETTLED => return Ok(()),
                    None => {}
                }
            }
            Err("a consumer ended by itself".into())
        };
        let timely = time::timeout(limit, heard).await;
        timely.map_err(|_| format!("nothing was settled within {limit:?} of a restart"))?
    }

    /// Kills it. Returns its name, if it came to have one.
    async fn kill(mut self) -> Option<String> {
        self.process.kill();
        while let Some(line) = self.lines.recv().await {
            self.name = self.name.or_else(|| line.strip_prefix(NAME).map(Into::into));
        }
        self.name
    }
}

fn past(deadline: Instant, what: &str) -> Result {
    if Instant::now() > deadline { Err(what.into()) } else { Ok(()) }
}
