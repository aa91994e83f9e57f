//! A producer and consumers at work, and what can be asked of them while something is done to their servers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use highwater::{EntryId, StreamName, Subscription};
use highwater_redis::Client;
use tokio::{sync::watch, task::JoinHandle, time};

use super::{
    eyes::Eyes,
    ledger::{Count, Ledger},
    work,
};
use crate::{
    Result,
    cli::{FaultStore, Ownership},
};

/// Longer than any recovery may take, so that a slow one is measured and reported, not cut off.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// A graceful stop takes `drain_timeout` at most, and a goodbye.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);
const GROUP: &str = "auditors";

/// Who works where.
#[derive(Debug, Clone)]
pub struct Plan {
    pub redis: String,
    pub postgres: Option<String>,
    pub stream: String,
    pub client: Client,
    pub ownership: Ownership,
    pub store: FaultStore,
    pub consumers: usize,
    /// Whether the server may lose entries: then gaps and resets are followed, where else they end a consumer.
    pub follows: bool,
    /// Whether, of those in transactions of PostgreSQL, every second one has a transaction for each entry.
    pub singly: bool,
    /// Entries a second, about.
    pub rate: u64,
    /// How long the producer keeps entries; as long as the library does, if it is not given.
    pub retention: Option<Duration>,
}

/// What all tasks of a scene know.
#[derive(Debug)]
pub struct Shared {
    pub plan: Plan,
    pub subscription: Subscription,
    pub produce: watch::Sender<bool>,
    pub consume: watch::Sender<bool>,
    ledger: Mutex<Ledger>,
}

impl Shared {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stream(&self) -> StreamName {
        self.subscription.stream.clone()
    }
}

/// The work under way.
#[derive(Debug)]
pub struct Scene {
    pub shared: Arc<Shared>,
    eyes: Eyes,
    producer: JoinHandle<()>,
    consumers: Vec<JoinHandle<()>>,
    /// All entries below this number were settled when somebody looked.
    settled_below: u64,
}

/// What it came to.
#[derive(Debug)]
pub struct Finished {
    pub count: Count,
    /// Whether all that is in the stream was settled in time.
    pub settled: bool,
    pub shared: Arc<Shared>,
}

impl Scene {
    /// Starts all of it.
    pub async fn start(plan: Plan) -> Result<Self> {
        let subscription = Subscription::new(&*plan.stream, GROUP)?;
        let shared = Arc::new(Shared {
            plan,
            subscription,
            produce: watch::channel(true).0,
            consume: watch::channel(true).0,
            ledger: Mutex::default(),
        });
        let eyes = Eyes::new(Arc::clone(&shared));
        eyes.prepare().await?;
        let consumers = 1..=shared.plan.consumers;
        let consumers = consumers.map(|nth| tokio::spawn(work::consume(Arc::clone(&shared), nth))).collect();
        let producer = tokio::spawn(work::produce(Arc::clone(&shared)));
        Ok(Self { shared, eyes, producer, consumers, settled_below: 1 })
    }

    /// Waits until the first entry is settled that is appended from now on. Returns how long after `since` that was.
    pub async fn recover(&self, since: Instant) -> Result<Duration> {
        let deadline = Instant::now() + PROGRESS_LIMIT;
        let (_, id) = self.appended(0, deadline).await?;
        while !self.eyes.sees_settled(id).await {
            past(deadline, "no new entry is settled")?;
            time::sleep(POLL).await;
        }
        Ok(since.elapsed())
    }

    /// Lets so many entries come, and waits until all up to there are settled.
    pub async fn pass(&mut self, others: u64) -> Result {
        let deadline = Instant::now() + PROGRESS_LIMIT;
        let (number, id) = self.appended(others, deadline).await?;
        while !self.eyes.sees_settled_up_to(id).await {
            past(deadline, "not all is settled")?;
            time::sleep(POLL).await;
        }
        self.settled_below = number;
        Ok(())
    }

    /// The first entry behind so many others from now on that the server confirms.
    async fn appended(&self, others: u64, deadline: Instant) -> Result<(u64, EntryId)> {
        self.shared.ledger().await_next(others);
        loop {
            let found = self.shared.ledger().found();
            if let Some(found) = found {
                return Ok(found);
            }
            past(deadline, "no entry can be appended")?;
            time::sleep(POLL).await;
        }
    }

    /// Waits until consumers have told of a gap or a reset, but no longer.
    pub async fn until_told(&self, deadline: Instant) {
        let told = || {
            let ledger = self.shared.ledger();
            ledger.seen.gaps + ledger.seen.resets > 0
        };
        while !told() && Instant::now() < deadline {
            time::sleep(POLL).await;
        }
    }

    /// The fault that is over may have taken entries: none that was settled when it began, and none from now on.
    pub fn forgive(&self) {
        self.shared.ledger().destroyed(self.settled_below);
    }

    /// Lets all that is left be done, and counts.
    pub async fn finish(mut self) -> Result<Finished> {
        self.shared.produce.send_replace(false);
        time::timeout(PROGRESS_LIMIT, &mut self.producer)
            .await
            .map_err(|_| "the producer does not end")??;
        let settled = self.until_all_settled().await?;
        self.shared.consume.send_replace(false);
        for consumer in self.consumers {
            time::timeout(STOP_LIMIT, consumer).await.map_err(|_| "a consumer does not stop")??;
        }
        let there = self.eyes.numbers_in_stream().await?;
        self.eyes.collect_effects().await?;
        let mut ledger = self.shared.ledger();
        let count = ledger.count(&there);
        ledger.note(format_args!("of {} appended, {} are there at the end", count.appended, there.len()));
        let missing = ledger.missing(&there);
        if !missing.is_empty() {
            ledger.note(format_args!("the first that are missing: {missing:?}"));
        }
        drop(ledger);
        Ok(Finished { count, settled, shared: self.shared })
    }

    /// Whether the last entry comes to be settled, and so all before it.
    async fn until_all_settled(&mut self) -> Result<bool> {
        let deadline = Instant::now() + PROGRESS_LIMIT;
        let last: EntryId = loop {
            match self.eyes.last_id().await {
                Ok(last) => break last,
                Err(error) => past(deadline, &error.to_string())?,
            }
            time::sleep(POLL).await;
        };
        while !self.eyes.sees_settled_up_to(last).await {
            if Instant::now() > deadline {
                self.shared.ledger().note(format_args!("{last}, the last entry, is not settled in time"));
                return Ok(false);
            }
            time::sleep(POLL).await;
        }
        Ok(true)
    }
}

pub fn past(deadline: Instant, what: &str) -> Result {
    if Instant::now() > deadline { Err(format!("{what} in time").into()) } else { Ok(()) }
}
