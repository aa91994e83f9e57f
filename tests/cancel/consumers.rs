//! Consumers and producers, each dropped at every await: whoever comes next finds all that is left.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use highwater::{
    Delivery, EntryId, Fields, HandlerError, Ownership, Producer, Report,
    backend::{Read, StreamBackend},
};
use tokio::sync::Notify;

use super::{at_every_await, fred, memory, redis, sqlite};
use crate::delivery::{AnyBuilder, Place, Running, number};

const COUNT: u64 = 5;

/// How a consumer is used.
#[derive(Debug, Clone, Copy)]
enum Way {
    Run,
    Batches,
    Deliveries,
}

/// What was handled.
#[derive(Clone, Default)]
struct Seen {
    numbers: Arc<Mutex<BTreeSet<u64>>>,
    all: Arc<Notify>,
}

impl Seen {
    fn note(&self, delivery: &Delivery) {
        let mut numbers = self.numbers.lock().unwrap();
        numbers.insert(number(delivery));
        if numbers.len() as u64 == COUNT {
            self.all.notify_one();
        }
    }

    fn handler(
        &self,
    ) -> impl Fn(Delivery) -> std::future::Ready<Result<(), HandlerError>> + Send + Sync + 'static {
        let seen = self.clone();
        move |delivery| {
            seen.note(&delivery);
            std::future::ready(Ok(()))
        }
    }
}

fn builder(place: &Place, ownership: Ownership) -> AnyBuilder {
    place.builder(ownership).configure(|settings| {
        // Whoever was dropped says no goodbye, and is waited for.
        settings.ttl = Duration::from_millis(100);
        settings.claim_interval = Duration::from_millis(10);
        // What was acked and not advanced is, once it is idle.
        settings.probe_interval = Duration::from_millis(10);
    })
}

async fn use_it(builder: AnyBuilder, way: Way, seen: Seen) -> Report {
    let consumer = builder.build().unwrap();
    match way {
        Way::Run => consumer.run(seen.handler(), seen.all.notified()).await.unwrap(),
        Way::Batches => {
            let noting = seen.clone();
            let handler = move |batch: Vec<Delivery>| {
                batch.iter().for_each(|delivery| noting.note(delivery));
                std::future::ready(Ok::<_, HandlerError>(()))
            };
            consumer.run_batches(handler, seen.all.notified()).await.unwrap()
        }
        Way::Deliveries => {
            let mut deliveries = consumer.into_stream();
            while seen.numbers.lock().unwrap().len() < COUNT as usize
                && let Some(delivery) = deliveries.next().await
            {
                let delivery = delivery.unwrap();
                seen.note(&delivery);
                delivery.settle();
            }
            deliveries.stop().await.unwrap()
        }
    }
}

/// A consumer of this place that is used so is dropped at each of its awaits, and another one finishes.
async fn dropped(place: impl AsyncFn() -> Place, ownership: Ownership, way: Way) {
    let awaits = at_every_await("a consumer", async |cut| {
        let place = place().await;
        place.append(COUNT).await;
        let seen = Seen::default();
        cut.call(use_it(builder(&place, ownership), way, seen.clone())).await;
        let next = Running::start(builder(&place, ownership), seen.handler());
        place.until_all_settled().await;
        next.stop().await;
        let numbers: Vec<_> = seen.numbers.lock().unwrap().iter().copied().collect();
        assert_eq!(numbers, (1..=COUNT).collect::<Vec<_>>(), "G1: {ownership:?} {way:?}");
    });
    assert!(awaits.await > 0, "nothing was dropped");
}

/// A producer whose calls are dropped appends each entry at most once, in order, and goes on.
async fn produces(backend: Arc<dyn StreamBackend>) {
    let fields = |n: u64| Fields::from_iter([("n", n.to_string())]);
    for operation in ["append", "append_many", "append_typed", "flush", "close"] {
        let awaits = at_every_await(operation, async |cut| {
            let place = Place::new(Arc::clone(&backend), Arc::new(highwater::Memory::new()));
            let producer = Producer::new(place.subscription.stream.clone(), Arc::clone(&backend)).unwrap();
            producer.append(fields(1)).await.unwrap();
            match operation {
                "append" => drop(cut.call(producer.append(fields(2))).await),
                "append_many" => drop(cut.call(producer.append_many(vec![fields(2), fields(3)])).await),
                "append_typed" => drop(cut.call(producer.append_json(&2)).await),
                "flush" => drop(cut.call(producer.flush()).await),
                _ => drop(cut.call(producer.close()).await),
            }
            // Until a close was begun, it goes on; a dropped one may have been.
            let last = producer.append(fields(9)).await;
            assert!(last.is_ok() || operation == "close", "{operation}: {last:?}");
            producer.close().await.unwrap();
            let read = Read::new(place.subscription.stream.clone(), EntryId::ZERO, 100);
            let entries = backend.read(&read).await.unwrap();
            let there: Vec<_> = entries.iter().filter_map(|entry| entry.fields.get("n")).cloned().collect();
            let whole: [&[&str]; 4] = [&["1", "9"], &["1", "2", "9"], &["1", "2", "3", "9"], &["1"]];
            assert!(whole.iter().any(|whole| there == *whole), "{operation}: {there:?}");
        });
        let awaits = awaits.await;
        assert!(awaits > 0 || operation == "flush", "{operation} never waits, so nothing was dropped");
    }
}

async fn in_memory() -> Place {
    let memory = Arc::new(memory());
    Place::new(memory.clone(), memory)
}

async fn in_redis() -> Place {
    let redis = Arc::new(redis().await);
    Place::new(redis.clone(), redis)
}

async fn in_redis_by_fred() -> Place {
    let fred = Arc::new(fred().await);
    Place::new(fred.clone(), fred)
}

async fn in_sqlite() -> Place {
    let (sqlite, folder) = sqlite().await;
    let sqlite = Arc::new(sqlite);
    Place { _keep: vec![Box::new(folder)], ..Place::new(sqlite.clone(), sqlite) }
}

#[tokio::test(start_paused = true)]
async fn g14_each_way_to_consume_in_memory() {
    for way in [Way::Run, Way::Batches, Way::Deliveries] {
        for ownership in [Ownership::Shared, Ownership::Exclusive] {
            dropped(in_memory, ownership, way).await;
        }
    }
}

#[tokio::test]
async fn g14_a_shared_consumer_of_redis() {
    dropped(in_redis, Ownership::Shared, Way::Run).await;
}

#[tokio::test]
async fn g14_an_owner_in_redis() {
    dropped(in_redis, Ownership::Exclusive, Way::Batches).await;
}

#[tokio::test]
async fn g14_a_shared_consumer_of_redis_by_fred() {
    dropped(in_redis_by_fred, Ownership::Shared, Way::Deliveries).await;
}

#[tokio::test]
async fn g14_an_owner_in_redis_by_fred() {
    dropped(in_redis_by_fred, Ownership::Exclusive, Way::Run).await;
}

#[tokio::test]
async fn g14_a_shared_consumer_of_sqlite() {
    dropped(in_sqlite, Ownership::Shared, Way::Run).await;
}

#[tokio::test]
async fn g14_a_producer_in_memory_and_in_redis() {
    produces(Arc::new(memory())).await;
    produces(Arc::new(redis().await)).await;
    produces(Arc::new(fred().await)).await;
    let (sqlite, _folder) = sqlite().await;
    produces(Arc::new(sqlite)).await;
}
