//! The world of a run: consumers, a producer and an operator, and what happens to them.

mod finish;
mod moves;
mod operator;

use std::time::Duration;

use highwater::{
    ConsumerName, EntryId, Error, ErrorKind, Fields, Memory, OnGap, Producer, Report, Subscription,
    backend::{Append, NewEntry, StreamBackend},
    clock::{Clock, Timestamp},
    integrity::Finding,
    layer::{Fault, Faults, Layer, Layered},
    producer::{ProducerSettings, Retention},
};
use tokio::task::JoinSet;

use crate::{
    actor::{Actor, Place},
    audit::Audit,
    mutants::Mutant,
    server::Server,
    setup::{DRAIN, Setup, TTL},
};

/// Entries of one key are handled in order, where that is promised.
const KEYS: u64 = 3;
/// A goodbye that does not arrive is given up after this.
const GOODBYE: Duration = Duration::from_millis(150);

pub type Verdict = Result<(), String>;

/// The system under test, and who acts on it.
pub struct World {
    setup: Setup,
    random: fastrand::Rng,
    place: Place,
    /// The operator's own way to the stores, which never fails.
    server: Server,
    actors: Vec<Actor>,
    /// Names of consumers that were killed.
    graves: Vec<ConsumerName>,
    next: EntryId,
    /// How many entries have a number.
    numbered: u64,
    paused: bool,
    producer: Producer<Layered<Server, Faults>>,
    /// What the producer is about to append.
    appends: JoinSet<()>,
    clock: Clock,
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>, loud: bool) -> Self {
        highwater::clock::seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let setup = Setup::draw(&mut random);
        let clock = Clock::at(Timestamp::from_millis(1_000_000));
        // From now on it counts.
        let _ = clock.elapsed();
        let stream = Memory::with_clock(clock.clone());
        let store = if setup.one_store { stream.clone() } else { Memory::with_clock(clock.clone()) };
        let audit = Audit::new(setup.clone(), clock.clone(), random.u64(..), loud);
        let subscription = Subscription::new("orders", "billing").expect("valid names");
        let late = setup.faults / 4.0;
        let place = Place { stream, store, subscription, audit, mutant, late, clock: clock.clone() };
        let server = place.server(0);
        let faults =
            Faults::seeded(random.u64(..), setup.faults, Duration::from_millis(40)).clock(clock.clone());
        let producer = produces(&place, faults, &clock);
        Self {
            setup,
            random,
            place,
            server,
            actors: Vec::new(),
            graves: Vec::new(),
            next: EntryId::new(1, 0),
            numbered: 0,
            paused: false,
            producer,
            appends: JoinSet::new(),
            clock,
        }
    }

    pub fn audit(&self) -> &Audit {
        &self.place.audit
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// All that happens, and then the oracle.
    pub async fn run(&mut self) -> Verdict {
        for _ in 0..self.setup.consumers {
            self.start();
        }
        for _ in 0..self.setup.steps {
            self.step().await?;
            let wait = self.random.u64(1..=25);
            self.sleep(Duration::from_millis(wait)).await;
            self.observe().await?;
        }
        self.finish().await
    }

    async fn step(&mut self) -> Verdict {
        match self.random.u8(..100) {
            0..36 => self.append().await,
            36..42 if self.actors.len() < 5 => self.start(),
            36..46 => self.kill().await,
            46..50 => self.stop(),
            50..56 => self.freeze(),
            56..62 => self.outage(),
            62..72 => self.mend(),
            72..76 => self.lose_group().await,
            76..80 => self.trim(false).await,
            80..82 => self.trim(true).await,
            82..84 => self.delete().await,
            84..87 => self.stale_write().await?,
            87..89 => self.reset().await,
            89..90 => self.recreate().await,
            90..92 => self.pause().await,
            92..94 => self.redrive().await,
            94..96 => self.seek().await?,
            96..98 => self.skip().await?,
            _ => {
                let wait = Duration::from_millis(self.random.u64(50..500));
                self.sleep(wait).await;
            }
        }
        Ok(())
    }

    fn start(&mut self) {
        // A new process may take the name of one that was killed.
        let name = self.graves.pop().filter(|_| self.random.bool());
        let renamed = name.is_some();
        let name = name.unwrap_or_else(|| {
            let n = self.random.u32(..);
            ConsumerName::new(format!("c-{n:08x}")).expect("a valid name")
        });
        let mut actor = Actor::start(&self.place, &self.setup, name, &mut self.random);
        actor.renamed = renamed;
        self.actors.push(actor);
    }

    async fn append(&mut self) {
        if self.audit().lock().stale {
            return;
        }
        let count = self.random.u64(1..=6);
        if self.setup.producer { self.produce(count) } else { self.append_some(count).await }
    }

    /// Another entry.
    fn entry(&mut self) -> (u64, Fields) {
        let n = self.numbered;
        self.numbered += 1;
        (n, Fields::from_iter([("n", n.to_string()), ("k", (n % KEYS).to_string())]))
    }

    /// A producer appends, and its calls may go wrong.
    fn produce(&mut self, count: u64) {
        for _ in 0..count {
            let ((n, fields), producer) = (self.entry(), self.producer.clone());
            let audit = self.audit().clone();
            self.appends.spawn(async move {
                match producer.append(fields).await {
                    Ok(id) => audit.lock().acknowledged(n, id),
                    Err(error) => {
                        audit.lock().note(format_args!("entry {n}: {:?} {:?}", error.kind(), error.outcome()))
                    }
                }
            });
        }
    }

    /// The operator appends, and nothing goes wrong.
    async fn append_some(&mut self, count: u64) {
        let mut entries = Vec::new();
        for _ in 0..count {
            let (n, fields) = self.entry();
            let entry = NewEntry::new(fields);
            entries.push(if self.setup.producer { entry } else { entry.with_id(self.next) });
            // Ids of the same millisecond, neighbours and jumps.
            self.next = match n % 4 {
                0 | 1 => EntryId::new(self.next.ms, self.next.seq + 1),
                2 => EntryId::new(self.next.ms + 1, 0),
                _ => EntryId::new(self.next.ms + 7, 3),
            };
        }
        let append = Append::new(self.place.subscription.stream.clone(), entries);
        let appended = self.server.append(&append).await.expect("the operator's stores answer");
        assert!(appended.iter().all(Result::is_ok), "ids ascend: {appended:?}");
    }

    /// One of the consumers.
    fn pick(&mut self) -> Option<usize> {
        (!self.actors.is_empty()).then(|| self.random.usize(..self.actors.len()))
    }

    async fn kill(&mut self) {
        if let Some(at) = self.pick() {
            self.kill_one(at).await;
        }
    }

    /// Those whose handlers have killed their processes are followed by others.
    async fn bury_the_dead(&mut self) {
        let dying = std::mem::take(&mut self.audit().lock().dying);
        for who in dying {
            if let Some(at) = self.actors.iter().position(|actor| actor.who == who) {
                self.kill_one(at).await;
                self.start();
            }
        }
    }

    async fn kill_one(&mut self, at: usize) {
        let actor = self.actors.remove(at);
        self.audit().lock().killed(actor.who);
        self.graves.push(actor.name.clone());
        actor.kill().await;
    }

    fn stop(&mut self) {
        let now = self.clock.elapsed();
        if let Some(at) = self.pick().filter(|&at| !self.actors[at].frozen) {
            self.actors[at].stop(now);
        }
    }

    /// A process stands still, perhaps for longer than it counts as alive.
    fn freeze(&mut self) {
        if let Some(at) = self.pick().filter(|&at| self.actors[at].stopping.is_none()) {
            self.actors[at].freeze(true);
        }
    }

    /// A store is away, for one consumer or for all.
    fn outage(&mut self) {
        let (all, stores) = (self.random.bool(), self.random.u8(1..=3));
        let fault = if self.random.u8(..4) == 0 { Fault::Hang } else { Fault::Before };
        let chosen = self.pick();
        for (n, actor) in self.actors.iter().enumerate().filter(|(n, _)| all || Some(*n) == chosen) {
            debug_assert!(n < 8);
            (0..2).filter(|at| stores & (1 << at) != 0).for_each(|at| actor.away(at, fault));
        }
    }

    /// What was frozen or away is so no more.
    fn mend(&mut self) {
        for actor in &mut self.actors {
            actor.back();
            actor.freeze(false);
        }
    }

    /// Takes in what has happened.
    async fn observe(&mut self) -> Verdict {
        self.bury_the_dead().await;
        while let Some(at) = self.actors.iter().position(|actor| actor.task.is_finished()) {
            let actor = self.actors.remove(at);
            self.ended(actor).await?;
        }
        let now = self.clock.elapsed();
        let late =
            |actor: &&Actor| actor.stopping.is_some_and(|since| now > since + DRAIN + GOODBYE + TTL / 3);
        if let Some(actor) = self.actors.iter().find(late) {
            return Err(format!("G15: consumer {} does not stop", actor.who));
        }
        self.audit().lock().verdict()
    }

    /// A consumer has ended: every error is typed, and one that is a finding is true.
    async fn ended(&mut self, mut actor: Actor) -> Verdict {
        let who = actor.who;
        let result = (&mut actor.task).await.map_err(|error| format!("consumer {who} panicked: {error}"))?;
        match result {
            Ok(report) => self.stopped(&actor, &report),
            Err(error) => self.failed(who, actor.renamed, error).await,
        }
    }

    fn stopped(&mut self, actor: &Actor, report: &Report) -> Verdict {
        let mut audit = self.audit().lock();
        audit.stopped(actor.who, report);
        if actor.stopping.is_none() {
            return Err(format!("consumer {} ended, and nobody asked it to", actor.who));
        }
        Ok(())
    }

    /// A supervisor starts another one, after the operator has decided.
    async fn failed(&mut self, who: usize, renamed: bool, error: Error) -> Verdict {
        self.audit().lock().note(format_args!("c{who} ends: {error}"));
        self.audit().lock().ended(who);
        match (error.kind(), error.finding()) {
            (ErrorKind::Gap, Some(Finding::Gap(gap))) => {
                self.audit().lock().expect_gap(gap.lost.count());
                self.setup.on_gap = OnGap::Skip;
            }
            (ErrorKind::Reset, Some(Finding::Reset(_))) => {
                let excused = self.audit().lock().may_see_reset(who);
                if !excused {
                    return Err(format!("G8: the stream is the same, and consumer {who} says {error}"));
                }
                if self.audit().lock().stale {
                    self.set_checkpoint(EntryId::ZERO).await;
                }
            }
            // What the one before it sent under this name came late.
            (ErrorKind::Busy, _) if renamed => {}
            _ => return Err(format!("typed: consumer {who} ended with {error:?}")),
        }
        self.start();
        Ok(())
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }
}

fn produces(place: &Place, faults: Faults, clock: &Clock) -> Producer<Layered<Server, Faults>> {
    let mut settings = ProducerSettings::default();
    (settings.retention, settings.batch_entries_max) = (Retention::Forever, 4);
    let stream = place.subscription.stream.clone();
    let builder =
        Producer::builder(stream, faults.wrap(place.server(0))).settings(settings).clock(clock.clone());
    builder.build().expect("the settings are valid")
}
