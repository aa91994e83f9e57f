//! How late entries come, at a given rate, and what many consumers in one process cost.

mod ours;
mod pace;
mod raw;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time};

use self::pace::Pacer;
pub use self::pace::pace;
use crate::{
    Result,
    env::Env,
    histogram::Histogram,
    list::{Group, Scenario},
    measure::{Run, now},
};

/// Consumers have this long to take their places.
const SETTLE_IN: Duration = Duration::from_secs(2);
/// After the last entry was due, stragglers have this long.
const STRAGGLE: Duration = Duration::from_secs(60);
const SECONDS: u64 = 10;

/// All groups of scenarios with a given rate.
pub fn groups() -> Vec<Group> {
    let at = |many, rate, list: Vec<Scenario>| -> Vec<Scenario> {
        list.into_iter().map(|scenario| scenario.many(many).paced(rate, SECONDS)).collect()
    };
    vec![
        Group {
            name: "latency",
            about: "One consumer, 1,000 entries a second, from before the append to the handler.",
            scenarios: at(1, 1_000, all([raw::one(), ours::one(), sea("one")])),
        },
        Group {
            name: "fan-out",
            about: "100 groups on one stream in one process, 500 entries a second for each.",
            scenarios: at(100, 500, all([raw::groups(), ours::groups(), sea("100 groups")])),
        },
        Group {
            name: "consumers",
            about: "1,000 consumers in one process, 500 entries a second in all.",
            scenarios: at(1_000, 500, ours::many()),
        },
        Group {
            name: "subscriptions",
            about: "10,000 subscriptions in one process, each on a stream of its own, 1,000 entries a second in all.",
            scenarios: at(10_000, 1_000, ours::most()),
        },
        Group {
            name: "polling",
            about: "100 subscriptions on streams of their own, 100 entries a second in all: waiting against looking every 100 ms.",
            scenarios: at(100, 100, all([raw::polling(), ours::polling()])),
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

/// Takes deliveries, and says when all came.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    expected: u64,
    late: Mutex<Histogram>,
    all: Notify,
}

impl Gauge {
    fn new(expected: u64) -> Self {
        Self(Arc::new(Inner { expected, late: Mutex::default(), all: Notify::new() }))
    }

    /// A payload begins with the time at which it was sent, by the clock that all processes read.
    pub fn take(&self, payload: &[u8]) -> Result {
        let sent: u64 =
            std::str::from_utf8(payload.get(..pace::DIGITS).ok_or("an entry without a time")?)?.parse()?;
        let late = Duration::from_nanos(now().saturating_sub(sent));
        let mut histogram = self.0.late.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.record(late);
        if histogram.len() == self.0.expected {
            self.0.all.notify_one();
        }
        Ok(())
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
    let gauge = Gauge::new(env.entries);
    let mut running = consume(gauge.clone()).await?;
    time::sleep(SETTLE_IN).await;
    let connections = crate::raw::connections(&env).await?;
    let meter = env.start()?;
    let mut pacer = Pacer::start(&env, &streams, appended)?;
    let patience = Duration::from_secs(appended / env.rate.max(1)) + STRAGGLE;
    let came = time::timeout(patience, gauge.0.all.notified()).await;
    let mut run = meter.stop()?;
    pacer.wait()?;
    if let Some(ended) = running.try_join_next() {
        ended??;
    }
    let late = gauge.0.late.lock().unwrap_or_else(PoisonError::into_inner);
    if came.is_err() {
        return Err(format!("{} of {} deliveries came", late.len(), env.entries).into());
    }
    let micros = |share| late.quantile(share).as_secs_f64() * 1e6;
    let more = [("p50 us", micros(0.5)), ("p95 us", micros(0.95)), ("p99 us", micros(0.99))];
    run.more.extend(more.map(|(name, value)| (name.to_owned(), value)));
    run.more.insert("connections".to_owned(), connections as f64);
    Ok(run)
}

/// Consumers at work, which end when this is dropped.
pub type Running = tokio::task::JoinSet<Result>;
