//! G1, G5, G6, G13, G15 on real stores: every way to combine the stream's store with the checkpoint's.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use highwater::{
    Backoff, Builder, Consumer, Delivery, Fields, HandlerError, Memory, Ownership, Producer, Report, Result,
    Subscription,
    backend::{CheckpointBackend, Inspect, Removal, StreamBackend},
};
use highwater_redis::Redis;
use highwater_sqlite::Sqlite;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::support::{RedisServer, eventually, shared_redis_url, unique};

const LIMIT: Duration = Duration::from_secs(20);

pub type AnyBuilder = Builder<Arc<dyn StreamBackend>, Arc<dyn CheckpointBackend>>;

/// A stream store, a checkpoint store, and a subscription of its own.
pub struct Place {
    pub stream: Arc<dyn StreamBackend>,
    pub checkpoints: Arc<dyn CheckpointBackend>,
    pub subscription: Subscription,
    /// What must outlive the stores.
    pub _keep: Vec<Box<dyn std::any::Any + Send + Sync>>,
}

impl Place {
    pub fn new(stream: Arc<dyn StreamBackend>, checkpoints: Arc<dyn CheckpointBackend>) -> Self {
        let subscription = Subscription::new(unique("stream"), "group").expect("a valid name");
        Self { stream, checkpoints, subscription, _keep: Vec::new() }
    }

    fn keeping(mut self, what: impl std::any::Any + Send + Sync) -> Self {
        self._keep.push(Box::new(what));
        self
    }

    pub async fn append(&self, count: u64) {
        let producer = Producer::new(self.subscription.stream.clone(), Arc::clone(&self.stream)).unwrap();
        let entries = (1..=count).map(|n| Fields::from_iter([("n", n.to_string())])).collect();
        for appended in producer.append_many(entries).await.unwrap() {
            appended.unwrap();
        }
        producer.close().await.unwrap();
    }

    pub fn builder(&self, ownership: Ownership) -> AnyBuilder {
        Consumer::builder(self.subscription.clone(), Arc::clone(&self.stream), Arc::clone(&self.checkpoints))
            .configure(|settings| settings.ownership = ownership)
    }

    /// Whether all that the stream holds is settled.
    pub async fn all_settled(&self) -> bool {
        let state = self.stream.inspect(&Inspect::stream(self.subscription.stream.clone())).await.unwrap();
        let checkpoint = self.checkpoints.load(&self.subscription).await.unwrap();
        match (state, checkpoint) {
            (Some(state), Some(checkpoint)) => checkpoint.position.watermark >= state.last_id,
            _ => false,
        }
    }

    pub async fn until_all_settled(&self) {
        eventually("all is settled", LIMIT, async || self.all_settled().await).await;
    }
}

/// What a handler was called with, by number and in order.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<u64>>>);

impl Seen {
    pub fn numbers(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    pub fn handler(
        &self,
    ) -> impl Fn(Delivery) -> std::future::Ready<Result<(), HandlerError>> + Send + Sync + 'static {
        let seen = self.clone();
        move |delivery| {
            seen.0.lock().unwrap().push(number(&delivery));
            std::future::ready(Ok(()))
        }
    }
}

pub fn number(delivery: &Delivery) -> u64 {
    std::str::from_utf8(delivery.fields().get("n").unwrap()).unwrap().parse().unwrap()
}

/// A consumer that runs in a task of its own until it is told to stop.
pub struct Running {
    stop: oneshot::Sender<()>,
    run: JoinHandle<Result<Report>>,
}

impl Running {
    pub fn start(builder: AnyBuilder, handler: impl highwater::Handler) -> Self {
        let (stop, stopped) = oneshot::channel();
        let consumer = builder.build().unwrap();
        Self { stop, run: tokio::spawn(consumer.run(handler, async { drop(stopped.await) })) }
    }

    pub async fn stop(self) -> Report {
        self.stop.send(()).unwrap();
        self.run.await.unwrap().unwrap()
    }

    /// As a kill would: nothing is said to anybody.
    pub fn abort(self) {
        self.run.abort();
    }
}

async fn redis() -> Arc<Redis> {
    Arc::new(Redis::connect(&shared_redis_url()).await.unwrap())
}

async fn sqlite() -> (Arc<Sqlite>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(Sqlite::open(folder.path().join("highwater.db")).await.unwrap()), folder)
}

/// Every stream store with every checkpoint store, each on its own where that makes a difference.
pub async fn places() -> Vec<(&'static str, Place)> {
    let other = RedisServer::start();
    let other_redis = Arc::new(Redis::connect(&other.url()).await.unwrap());
    let (file, folder) = sqlite().await;
    let (other_file, other_folder) = sqlite().await;
    let same = redis().await;
    vec![
        ("redis + same redis", Place::new(same.clone(), same.clone())),
        ("redis + other redis", Place::new(same.clone(), other_redis).keeping(other)),
        ("redis + sqlite", Place::new(same.clone(), other_file).keeping(other_folder)),
        ("redis + memory", Place::new(same.clone(), Arc::new(Memory::new()))),
        ("sqlite + same sqlite", Place::new(file.clone(), file.clone()).keeping(folder)),
        ("sqlite + redis", Place::new(file, same.clone())),
        ("memory + redis", Place::new(Arc::new(Memory::new()), same)),
    ]
}

fn both() -> [Ownership; 2] {
    [Ownership::Shared, Ownership::Exclusive]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_every_combination_consumes_and_resumes() {
    for ownership in both() {
        for (name, place) in places().await {
            place.append(500).await;
            let seen = Seen::default();
            let running = Running::start(place.builder(ownership), seen.handler());
            place.until_all_settled().await;
            let report = running.stop().await;
            assert_eq!(
                (report.settled, report.abandoned, report.unsaved),
                (500, 0, 0),
                "{name} {ownership:?}"
            );
            place.append(100).await;
            let more = Seen::default();
            let running = Running::start(place.builder(ownership), more.handler());
            place.until_all_settled().await;
            running.stop().await;
            assert_eq!(seen.numbers(), (1..=500).collect::<Vec<_>>(), "{name} {ownership:?}");
            assert_eq!(more.numbers(), (1..=100).collect::<Vec<_>>(), "{name} {ownership:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g6_a_destroyed_group_goes_on_at_the_checkpoint_in_every_combination() {
    for (name, place) in places().await {
        place.append(50).await;
        let seen = Seen::default();
        let running = Running::start(place.builder(Ownership::Shared), seen.handler());
        place.until_all_settled().await;
        assert_eq!(
            place.stream.remove(&Removal::Group(place.subscription.clone())).await.unwrap(),
            1,
            "{name}"
        );
        place.append(50).await;
        place.until_all_settled().await;
        running.stop().await;
        let expected: Vec<_> = (1..=50).chain(1..=50).collect();
        assert_eq!(seen.numbers(), expected, "{name}: each once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_with_holes_only_the_holes_come_back_in_every_combination() {
    for ownership in both() {
        for (name, place) in places().await {
            place.append(60).await;
            let mut deliveries = place.builder(ownership).concurrency(60).build().unwrap().into_stream();
            let mut held = Vec::new();
            for _ in 0..60 {
                let delivery = deliveries.next().await.unwrap().unwrap();
                if [2, 4, 50].contains(&number(&delivery)) { held.push(delivery) } else { delivery.settle() }
            }
            let last = place
                .stream
                .inspect(&Inspect::stream(place.subscription.stream.clone()))
                .await
                .unwrap()
                .unwrap();
            eventually("the rest is saved", LIMIT, async || {
                let checkpoint = place.checkpoints.load(&place.subscription).await.unwrap();
                checkpoint.is_some_and(|checkpoint| checkpoint.position.settles(last.last_id))
            })
            .await;
            drop(deliveries);
            drop(held);
            if ownership == Ownership::Shared {
                eventually("the group is gone", LIMIT, async || {
                    place.stream.remove(&Removal::Group(place.subscription.clone())).await.unwrap() == 1
                })
                .await;
            }
            let seen = Seen::default();
            let running = Running::start(place.builder(ownership), seen.handler());
            place.until_all_settled().await;
            running.stop().await;
            assert_eq!(seen.numbers(), [2, 4, 50], "{name} {ownership:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_what_a_killed_consumer_held_is_settled_within_5_s_and_a_long_handler_runs_once() {
    let place = |stores: Arc<Redis>| Place::new(stores.clone(), stores);
    for ownership in both() {
        let place = place(redis().await);
        place.append(1).await;
        let calls = Seen::default();
        let slow = {
            let calls = calls.clone();
            move |delivery: Delivery| {
                calls.0.lock().unwrap().push(number(&delivery));
                std::future::pending::<Result<(), HandlerError>>()
            }
        };
        let holder = Running::start(place.builder(ownership), slow);
        eventually("it is called", LIMIT, async || calls.numbers().len() == 1).await;
        let seen = Seen::default();
        let beside = Running::start(place.builder(ownership), seen.handler());
        // Three times the time to live: whoever judges by idle time has claimed it by then.
        let watched = Instant::now();
        eventually("nine seconds have passed", LIMIT, async || watched.elapsed() > Duration::from_secs(9))
            .await;
        assert_eq!(seen.numbers(), [0u64; 0], "{ownership:?}: the living keep what they hold");
        holder.abort();
        let killed = Instant::now();
        place.until_all_settled().await;
        assert!(killed.elapsed() < Duration::from_secs(5), "{ownership:?}: {:?}", killed.elapsed());
        assert_eq!((calls.numbers().len(), seen.numbers()), (1, vec![1]));
        beside.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g12_a_retry_and_a_dead_letter_are_seen_by_no_other_group_in_every_combination() {
    for ownership in both() {
        for (name, place) in places().await {
            place.append(20).await;
            let stream = Inspect::stream(place.subscription.stream.clone());
            let before = place.stream.inspect(&stream).await.unwrap();
            let failing = place.builder(ownership).configure(|settings| {
                settings.attempts_max = 3;
                settings.retry = Backoff::steps([Duration::from_millis(1)]);
            });
            // Two of three entries succeed at the second attempt; the others never do.
            let tried = Mutex::new(BTreeSet::new());
            let fails = move |delivery: Delivery| {
                let n = number(&delivery);
                let failed = tried.lock().unwrap().insert(n) || n.is_multiple_of(3);
                let verdict = if failed { Err(HandlerError::retry("not yet")) } else { Ok(()) };
                std::future::ready(verdict)
            };
            let running = Running::start(failing, fails);
            place.until_all_settled().await;
            let report = running.stop().await;
            assert_eq!((report.settled, report.dead_lettered), (14, 6), "{name} {ownership:?}");
            let after = place.stream.inspect(&stream).await.unwrap();
            assert_eq!(before, after, "{name} {ownership:?}");

            let seen = Seen::default();
            let other = Subscription::new(place.subscription.stream.as_str(), "another").unwrap();
            let other = Place { subscription: other, ..place };
            let running = Running::start(other.builder(ownership), seen.handler());
            other.until_all_settled().await;
            running.stop().await;
            assert_eq!(seen.numbers(), (1..=20).collect::<Vec<_>>(), "{name} {ownership:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g15_an_idle_stop_is_prompt_and_leaves_no_consumer_behind() {
    for ownership in both() {
        for (name, place) in places().await {
            place.append(1).await;
            let builder =
                place.builder(ownership).configure(|settings| settings.block = Duration::from_secs(20));
            let running = Running::start(builder, Seen::default().handler());
            place.until_all_settled().await;
            // Let the read be outstanding; then nothing but the stop ends it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let stopping = Instant::now();
            running.stop().await;
            assert!(
                stopping.elapsed() < Duration::from_millis(200),
                "{name} {ownership:?}: {:?}",
                stopping.elapsed()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_consumers_of_one_group_share_the_stream_and_lose_nothing() {
    for (name, place) in places().await {
        let seen = Seen::default();
        let running: Vec<_> = (0..8)
            .map(|_| Running::start(place.builder(Ownership::Shared).concurrency(4), seen.handler()))
            .collect();
        place.append(2_000).await;
        place.until_all_settled().await;
        for running in running {
            running.stop().await;
        }
        let numbers = seen.numbers();
        let distinct: BTreeSet<_> = numbers.iter().copied().collect();
        assert_eq!((numbers.len(), distinct.len()), (2_000, 2_000), "{name}: each once");
    }
}
