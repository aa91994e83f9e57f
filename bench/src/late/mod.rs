//! How late entries come, at a given rate, and what many consumers in one process cost.

mod ours;
mod pace;
mod raw;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time};

use self::pace::Pacer;
pub use self::pace::pace;
use crate::{
    Result,
    env::Env,
    histogram::Histogram,
    list::{Group, Scenario, Shows},
    measure::{Run, now},
};

/// All consumers must have their first entry in this time.
const START_MAX: Duration = Duration::from_secs(60);
/// Then what their start has left behind has this long to end.
const SETTLE_IN: Duration = Duration::from_secs(1);
/// After the last entry was due, stragglers have this long.
const STRAGGLE: Duration = Duration::from_secs(30);

/// All groups of scenarios with a given rate.
pub fn groups() -> Vec<Group> {
    let at = |many, rate, list: Vec<Scenario>| -> Vec<Scenario> {
        list.into_iter().map(|scenario| scenario.many(many).paced(rate)).collect()
    };
    vec![
        Group {
            name: "latency",
            about: "One consumer, 1,000 entries a second, from before the append to the handler.",
            shows: Shows::Late,
            scenarios: at(1, 1_000, all([raw::one(), ours::one(), sea("one")])),
        },
        Group {
            name: "fan-out",
            about: "100 groups on one stream in one process, 500 entries a second for each.",
            shows: Shows::Late,
            scenarios: at(100, 500, all([raw::groups(), ours::groups(), sea("100 groups")])),
        },
        Group {
            name: "crowd",
            about: "100 consumers of one group in one process, 500 entries a second in all.",
            shows: Shows::Late,
            scenarios: at(100, 500, all([raw::crowd(), ours::crowd(), sea_crowd()])),
        },
        Group {
            name: "consumers",
            about: "1,000 consumers in one process, 500 entries a second in all.",
            shows: Shows::Late,
            scenarios: at(1_000, 500, all([raw::many(), ours::many()])),
        },
        Group {
            name: "subscriptions",
            about: "10,000 subscriptions in one process, each on a stream of its own, 1,000 entries a second in all.",
            shows: Shows::Late,
            scenarios: at(10_000, 1_000, ours::most()),
        },
        Group {
            name: "polling",
            about: "100 subscriptions on streams of their own: waiting against looking every 100 ms.",
            shows: Shows::Cost,
            scenarios: [100, 10]
                .into_iter()
                .flat_map(|rate| {
                    let list = at(100, rate, all([raw::polling(), ours::polling()]));
                    list.into_iter().map(move |one| one.shaped(&format!("{rate} entries/s"), |_| {}))
                })
                .collect(),
        },
    ]
}

fn all<const N: usize>(lists: [Vec<Scenario>; N]) -> Vec<Scenario> {
    lists.into_iter().flatten().collect()
}

/// Peers, if they were built.
fn sea(_name: &str) -> Vec<Scenario> {
    #[cfg(feature = "peers")]
    return crate::peers::late(_name);
    #[cfg(not(feature = "peers"))]
    Vec::new()
}

fn sea_crowd() -> Vec<Scenario> {
    #[cfg(feature = "peers")]
    return crate::peers::crowd();
    #[cfg(not(feature = "peers"))]
    Vec::new()
}

/// What a process has many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Many {
    /// Groups on one stream.
    Groups,
    /// Consumers of one group.
    Consumers,
    /// Streams, each with its subscription.
    Streams,
}

/// Takes deliveries, and says when all came.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    taken: Mutex<Taken>,
    all: Notify,
}

#[derive(Debug)]
struct Taken {
    expected: u64,
    late: Histogram,
}

impl Gauge {
    fn new(expected: u64) -> Self {
        let taken = Taken { expected, late: Histogram::default() };
        Self(Arc::new(Inner { taken: Mutex::new(taken), all: Notify::new() }))
    }

    /// A payload begins with the time at which it was sent, by the clock that all processes read.
    pub fn take(&self, payload: &[u8]) -> Result {
        let sent: u64 =
            std::str::from_utf8(payload.get(..pace::DIGITS).ok_or("an entry without a time")?)?.parse()?;
        let late = Duration::from_nanos(now().saturating_sub(sent));
        let mut taken = self.taken();
        taken.late.record(late);
        if taken.late.len() == taken.expected {
            self.0.all.notify_one();
        }
        Ok(())
    }

    /// Resolves when all came; fails when they do not, or when a consumer has ended.
    async fn all(&self, running: &mut Running, patience: Duration) -> Result {
        tokio::select! {
            () = self.0.all.notified() => Ok(()),
            Some(ended) = running.join_next() => ended?.and(Err("a consumer has ended".into())),
            () = time::sleep(patience) => {
                let taken = self.taken();
                Err(format!("{} of {} deliveries came", taken.late.len(), taken.expected).into())
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the consumers stand, lets entries come, and measures until all were handled.
pub async fn under_load(
    mut env: Env,
    streams: Vec<String>,
    groups: u64,
    consume: impl AsyncFnOnce(Gauge) -> Result<Running>,
) -> Result<Run> {
    let appended = env.entries;
    env.entries *= groups;
    let firsts = streams.len() as u64 * groups;
    let (gauge, start) = (Gauge::new(firsts), Instant::now());
    let mut running = consume(gauge.clone()).await?;
    pace::append_first(&env, &streams).await?;
    gauge.all(&mut running, START_MAX).await.map_err(|error| format!("at the start: {error}"))?;
    let started = start.elapsed();
    time::sleep(SETTLE_IN).await;
    let connections = crate::raw::connections(&env).await?;
    *gauge.taken() = Taken { expected: env.entries, late: Histogram::default() };
    let mut meter = env.start()?;
    let mut pacer = Pacer::start(&env, &streams, appended)?;
    meter.beside(pacer.pid());
    let patience = Duration::from_secs(appended / env.rate.max(1)) + STRAGGLE;
    gauge.all(&mut running, patience).await?;
    let mut run = meter.stop()?;
    pacer.wait()?;
    let late = &gauge.taken().late;
    if late.len() != env.entries {
        return Err(format!("{} deliveries of {}", late.len(), env.entries).into());
    }
    let micros = |share| late.quantile(share).as_secs_f64() * 1e6;
    let more = [
        ("p50 us", micros(0.5)),
        ("p95 us", micros(0.95)),
        ("p99 us", micros(0.99)),
        ("connections", connections as f64),
    ];
    run.more.extend(more.map(|(name, value)| (name.to_owned(), value)));
    if firsts >= env.many {
        // Else not all consumers have a first entry.
        run.more.insert("start ms".to_owned(), started.as_secs_f64() * 1e3);
    }
    Ok(run)
}

/// Consumers at work, which end when this is dropped.
pub type Running = tokio::task::JoinSet<Result>;
