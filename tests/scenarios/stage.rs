//! Where the scenarios are played: each kind of store in both ownerships.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use highwater::{
    Backoff, Delivery, EntryId, Fields, HandlerError, Observation, OnGap, Ownership, Settings, Subscription,
    backend::{Append, CheckpointBackend, GroupState, Inspect, NewEntry, StreamBackend, StreamState},
};
use highwater_postgres::Postgres;
use highwater_redis::{Client, RedisStore};
use highwater_sqlite::Sqlite;

use tokio::sync::watch;

use crate::{
    delivery::{AnyBuilder, Place, number},
    support::{eventually, shared_postgres_url, shared_redis_url},
};

/// Much longer than anything here takes.
pub const LIMIT: Duration = Duration::from_secs(30);
/// How long a lease or a heartbeat lasts here: long enough for a machine with much to do.
pub const TTL: Duration = Duration::from_millis(1_500);

/// A place, and how it is owned.
pub struct Case {
    pub name: &'static str,
    pub place: Place,
    pub ownership: Ownership,
}

/// Plays a scenario over each store in both ownerships, all at the same time.
pub async fn everywhere(scenario: impl AsyncFn(Case)) {
    join_all(cases().await.into_iter().map(|case| scenario(case))).await;
}

/// Plays it where a subscription is owned in this way.
pub async fn wherever(ownership: Ownership, scenario: impl AsyncFn(Case)) {
    let cases = cases().await.into_iter().filter(|case| case.ownership == ownership);
    join_all(cases.map(|case| scenario(case))).await;
}

/// Both clients, a checkpoint beside the stream and elsewhere, and no server at all.
async fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let (file, folder) = sqlite().await;
        let places = [
            ("redis-rs", of(client(Client::RedisRs).await)),
            ("fred and PostgreSQL", Place::new(client(Client::Fred).await, postgres().await)),
            ("SQLite", of(file)),
        ];
        cases.extend(places.map(|(name, place)| Case { name, place, ownership }));
        cases.last_mut().unwrap().place._keep.push(Box::new(folder));
    }
    cases
}

/// One store for both.
pub fn of(store: Arc<impl StreamBackend + CheckpointBackend + ?Sized>) -> Place {
    Place::new(Arc::new(Arc::clone(&store)), Arc::new(store))
}

pub async fn client(client: Client) -> Arc<dyn RedisStore> {
    client_of(client, &shared_redis_url()).await
}

pub async fn client_of(client: Client, url: &str) -> Arc<dyn RedisStore> {
    highwater_redis::connect(url, client).await.unwrap()
}

pub async fn postgres() -> Arc<Postgres> {
    let postgres = Postgres::connect(&shared_postgres_url()).await.unwrap();
    postgres.ensure_schema().await.unwrap();
    Arc::new(postgres)
}

pub async fn sqlite() -> (Arc<Sqlite>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(Sqlite::open(folder.path().join("highwater.db")).await.unwrap()), folder)
}

/// Settings for tests that wait for what these govern.
pub fn quick(settings: &mut Settings) {
    settings.ttl = TTL;
    settings.block = Duration::from_millis(200);
    settings.probe_interval = Duration::from_millis(100);
    settings.claim_interval = Duration::from_millis(100);
    let backoff =
        Backoff { first: Duration::from_millis(20), max: Duration::from_millis(200), ..Backoff::default() };
    (settings.retry, settings.reconnect) = (backoff.clone(), backoff);
}

impl Case {
    pub fn builder(&self) -> AnyBuilder {
        self.place.builder(self.ownership).configure(quick)
    }

    /// Goes on without what is lost.
    pub fn skipping(&self) -> AnyBuilder {
        self.builder().configure(|settings| settings.on_gap = OnGap::Skip)
    }
}

pub fn id(n: u64) -> EntryId {
    EntryId::new(n, 0)
}

pub fn to(n: u64) -> Vec<u64> {
    (1..=n).collect()
}

/// Appends entries whose numbers are their ids.
pub async fn append(place: &Place, numbers: RangeInclusive<u64>) {
    append_to(&place.stream, &place.subscription, numbers).await;
}

pub async fn append_to(
    stream: &Arc<dyn StreamBackend>,
    subscription: &Subscription,
    numbers: RangeInclusive<u64>,
) {
    let entry = |n: u64| NewEntry::new(Fields::from_iter([("n", n.to_string())])).with_id(id(n));
    let request = Append::new(subscription.stream.clone(), numbers.map(entry).collect());
    for appended in stream.append(&request).await.unwrap() {
        appended.unwrap();
    }
}

pub async fn watermark(place: &Place) -> Option<u64> {
    let checkpoint = place.checkpoints.load(&place.subscription).await.unwrap();
    checkpoint.map(|checkpoint| checkpoint.position.watermark.ms)
}

pub async fn until_watermark(place: &Place, n: u64) {
    eventually(&format!("the watermark is {n}"), LIMIT, async || watermark(place).await == Some(n)).await;
}

pub async fn state(place: &Place) -> StreamState {
    place.stream.inspect(&Inspect::subscription(&place.subscription)).await.unwrap().unwrap()
}

pub async fn group(place: &Place) -> GroupState {
    state(place).await.group.expect("the group is there")
}

/// Waits for a time that is itself what the scenario is about: a lease's, a read's.
pub async fn for_a_time(time: Duration) {
    let start = Instant::now();
    eventually("the time has passed", LIMIT, async || start.elapsed() >= time).await;
}

/// What observers were told, as text.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub fn observer(&self) -> impl highwater::Observer {
        let told = self.clone();
        move |_: &Subscription, observation: &Observation<'_>| {
            told.0.lock().unwrap().push(format!("{observation:?}"));
        }
    }

    /// How often something was told that begins so.
    pub fn count(&self, start: &str) -> usize {
        self.all(start).len()
    }

    /// The sum of the numbers that follow such a start.
    pub fn sum(&self, start: &str) -> u64 {
        let number = |told: String| told[start.len()..].trim_end_matches(')').parse::<u64>().unwrap();
        self.all(start).into_iter().map(number).sum()
    }

    pub fn all(&self, start: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|told| told.starts_with(start)).cloned().collect()
    }
}

/// Notes its calls, and never returns from those with these numbers.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<u64>>>);

impl Calls {
    pub fn numbers(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    pub fn note(&self, delivery: &Delivery) -> u64 {
        let n = number(delivery);
        self.0.lock().unwrap().push(n);
        n
    }

    pub fn stuck_at(&self, stuck: impl IntoIterator<Item = u64>) -> impl highwater::Handler {
        let (calls, stuck) = (self.clone(), stuck.into_iter().collect::<Vec<_>>());
        move |delivery: Delivery| {
            let is_stuck = stuck.contains(&calls.note(&delivery));
            async move {
                if is_stuck {
                    std::future::pending::<()>().await;
                }
                Ok::<_, HandlerError>(())
            }
        }
    }

    /// Takes so long for each.
    pub fn slow(&self, time: Duration) -> impl highwater::Handler {
        let calls = self.clone();
        move |delivery: Delivery| {
            calls.note(&delivery);
            async move {
                tokio::time::sleep(time).await;
                Ok::<_, HandlerError>(())
            }
        }
    }

    pub async fn until(&self, what: &str, count: usize) {
        eventually(what, LIMIT, async || self.numbers().len() >= count).await;
    }

    /// Each of these once, in any order.
    #[track_caller]
    pub fn assert_once(&self, case: &str, numbers: RangeInclusive<u64>) {
        let mut seen = self.numbers();
        seen.sort_unstable();
        assert_eq!(seen, numbers.collect::<Vec<_>>(), "{case}: each once");
    }
}

/// Calls that wait until the gate is opened.
pub fn gated(
    calls: &Calls,
    closed: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> (watch::Sender<bool>, impl highwater::Handler) {
    let (open, opened) = watch::channel(false);
    let calls = calls.clone();
    let handler = move |delivery: Delivery| {
        let waits = closed(calls.note(&delivery));
        let mut opened = opened.clone();
        async move {
            if waits {
                drop(opened.wait_for(|open| *open).await);
            }
            Ok::<_, HandlerError>(())
        }
    };
    (open, handler)
}
