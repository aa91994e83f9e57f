//! What an entry costs, in allocations: a number that no other load on the machine changes.
//!
//! A binary of its own, since it counts by the allocator of the whole process. `xtask bench` measures seconds.

#[allow(dead_code, reason = "the other tests use what this does not")]
mod support;

use std::{
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use allocation_counter::measure;
use highwater::{Consumer, Delivery, Fields, Memory, Producer, Subscription, backend::AtomicSettle};
use highwater_redis::{Fred, Redis, Settings};
use support::{shared_redis_url, unique};
use tokio::{runtime::Runtime, sync::Notify};

/// Between these two the rest is the same: connections, scripts, the first and the last save.
const FEW: u64 = 10_000;
const MANY: u64 = 30_000;

fn runtime() -> Runtime {
    // One thread, since allocations are counted by thread.
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Allocations an entry from the store to the handler and behind it.
fn each<B: AtomicSettle>(runtime: &Runtime, backend: &Arc<B>) -> f64 {
    let [few, many] = [FEW, MANY].map(|entries| all(runtime, backend, entries));
    (many - few) as f64 / (MANY - FEW) as f64
}

fn all<B: AtomicSettle>(runtime: &Runtime, backend: &Arc<B>, entries: u64) -> u64 {
    let orders = Subscription::new(&unique("allocations"), "g").expect("valid names");
    let fields = || Fields::from_iter([("d", "x".repeat(100))]);
    runtime.block_on(async {
        let producer =
            Producer::new(orders.stream.clone(), Arc::clone(backend)).expect("the settings are valid");
        let appended =
            producer.append_many((0..entries).map(|_| fields()).collect()).await.expect("the store answers");
        assert!(appended.iter().all(Result::is_ok));
        producer.close().await.expect("the store answers");
    });
    let consumer = Consumer::fused(orders, Arc::clone(backend)).build().expect("the settings are valid");
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
fn an_entry_of_memory_takes_few_allocations() {
    within(each(&runtime(), &Arc::new(Memory::new())), MEMORY_MAX);
}

#[test]
fn an_entry_by_redis_rs_takes_few_allocations() {
    let runtime = runtime();
    let redis = runtime.block_on(Redis::connect(shared_redis_url())).unwrap();
    within(each(&runtime, &Arc::new(redis)), REDIS_RS_MAX);
}

#[test]
fn an_entry_by_fred_takes_few_allocations() {
    let runtime = runtime();
    let redis = runtime.block_on(Redis::<Fred>::open(Settings::new(shared_redis_url()))).unwrap();
    within(each(&runtime, &Arc::new(redis)), FRED_MAX);
}

fn within(each: f64, most: f64) {
    println!("{each:.2} allocations an entry, {most} at most");
    assert!(each <= most, "{each:.2} allocations an entry, and there were {most} at most");
    // The bound follows what was gained, or it guards nothing.
    assert!(each > most * 0.7, "{each:.2} allocations an entry: lower the bound of {most}");
}

/// The entry, its fields, and what `Memory` copies.
const MEMORY_MAX: f64 = 0.0;
/// The driver's value takes 5.1 of them.
const REDIS_RS_MAX: f64 = 0.0;
const FRED_MAX: f64 = 0.0;
