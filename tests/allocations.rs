//! What an entry costs, in allocations: a number that no other load on the machine changes.
//!
//! A binary of its own, since it counts by the allocator of the whole process. `xtask bench` measures seconds.

#[expect(
    clippy::disallowed_methods,
    dead_code,
    unreachable_pub,
    reason = "the other tests use what this does not, and servers start in real time"
)]
mod support {
    pub mod process;
    pub mod resp;
    pub mod server;
}

use std::{
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use allocation_counter::measure;
use highwater::{
    Consumer, Delivery, Fields, Memory, Ownership, Producer, Subscription, backend::AtomicSettle,
};
use highwater_redis::Redis;
use support::server::{RedisServer, redis_binary};
use tokio::{runtime::Runtime, sync::Notify};

/// Between these two the rest is the same: connections, scripts, the first and the last save.
const FEW: u64 = 10_000;
const MANY: u64 = 30_000;

fn runtime() -> Runtime {
    // One thread, since allocations are counted by thread.
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Allocations an entry from the store to the handler and behind it.
fn each<B: AtomicSettle>(runtime: &Runtime, backend: &Arc<B>, ownership: Ownership) -> f64 {
    let [few, many] = [FEW, MANY].map(|entries| all(runtime, backend, ownership, entries));
    (many - few) as f64 / (MANY - FEW) as f64
}

fn all<B: AtomicSettle>(runtime: &Runtime, backend: &Arc<B>, ownership: Ownership, entries: u64) -> u64 {
    let orders = Subscription::new(format!("{ownership:?}-{entries}"), "g").expect("valid names");
    let fields = || Fields::from_iter([("d", "x".repeat(100))]);
    runtime.block_on(async {
        let producer =
            Producer::new(orders.stream.clone(), Arc::clone(backend)).expect("the settings are valid");
        let appended =
            producer.append_many((0..entries).map(|_| fields()).collect()).await.expect("the store answers");
        assert!(appended.iter().all(Result::is_ok));
        producer.close().await.expect("the store answers");
    });
    let consumer =
        Consumer::fused(orders, Arc::clone(backend)).configure(|settings| settings.ownership = ownership);
    let consumer = consumer.build().expect("the settings are valid");
    let done = Arc::new(Notify::new());
    let (seen, all_seen) = (AtomicU64::new(1), Arc::clone(&done));
    let handler = move |_: Delivery| {
        if seen.fetch_add(1, Ordering::Relaxed) == entries {
            all_seen.notify_one();
        }
        ready(Ok::<_, io::Error>(()))
    };
    let counted = measure(|| {
        let report = runtime.block_on(consumer.run(handler, done.notified())).expect("nothing fails");
        assert_eq!(report.settled, entries);
    });
    counted.count_total
}

#[test]
fn a_shared_entry_of_memory_takes_few_allocations() {
    within(each(&runtime(), &Arc::new(Memory::new()), Ownership::Shared), 0.5);
}

#[test]
fn an_exclusive_entry_of_memory_takes_few_allocations() {
    within(each(&runtime(), &Arc::new(Memory::new()), Ownership::Exclusive), 0.3);
}

// Not by fred: it parses a reply anew for each piece that comes, so that the number depends on the socket.

/// One is for the list of its fields.
#[test]
fn a_shared_entry_by_redis_rs_takes_few_allocations() {
    within(by_redis_rs(Ownership::Shared), 1.7);
}

#[test]
fn an_exclusive_entry_by_redis_rs_takes_few_allocations() {
    within(by_redis_rs(Ownership::Exclusive), 1.7);
}

fn by_redis_rs(ownership: Ownership) -> f64 {
    let binary = redis_binary().expect("no Redis server: run `cargo xtask test`, which provides one");
    let server = RedisServer::try_start(&binary, &[]).expect("it starts");
    let runtime = runtime();
    let redis = runtime.block_on(Redis::connect(server.url())).expect("the server answers");
    each(&runtime, &Arc::new(redis), ownership)
}

/// The bounds have room for a slow machine, which saves more often, and none for one allocation more an entry. Whoever
/// needs fewer lowers the bound.
fn within(each: f64, most: f64) {
    println!("{each:.3} allocations an entry, {most} at most");
    assert!(each <= most, "{each:.3} allocations an entry, and there may be {most} at most");
}
