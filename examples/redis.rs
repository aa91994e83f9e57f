//! A Redis stream consumed by a group: one consumer crashes, another takes over what it held, and nothing is lost.
//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --example redis`

use std::sync::{Arc, Mutex};
use std::{collections::BTreeSet, env, error::Error, future::pending};

use highwater::{Consumer, EntryId, Fields, Handler, HandlerError, Producer, backend::*, clock::Clock};
use highwater::{Delivery, Position, Subscription};
use highwater_redis::Redis;
use tokio::sync::Notify;

/// Notes what it has handled. At the `until`th entry it says so and, if it is to crash, never gets further.
#[derive(Clone, Default)]
struct Billing {
    handled: Arc<Mutex<BTreeSet<EntryId>>>,
    reached: Arc<Notify>,
    until: usize,
    crashes: bool,
}

impl Handler for Billing {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        if self.handled.lock().expect("not poisoned").len() + 1 >= self.until {
            self.reached.notify_one();
            if self.crashes {
                pending::<()>().await;
            }
        }
        self.handled.lock().expect("not poisoned").insert(delivery.id());
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("REDIS_URL").map_err(|_| "set REDIS_URL, for instance to redis://127.0.0.1:6379")?;
    let redis = Arc::new(Redis::connect(url).await?);
    let orders = Subscription::new("highwater:example:orders", "billing")?;
    let stored = redis.load(&orders).await?.map_or_else(Position::default, |checkpoint| checkpoint.position);

    let producer =
        Producer::builder(orders.stream.clone(), Arc::clone(&redis)).protect(redis.clone()).build()?;
    let entries = (1..=1_000).map(|n| Fields::from_iter([("order", n.to_string())])).collect();
    producer.append_many(entries).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    producer.close().await?;
    let waiting = redis.read(&Read::new(orders.stream.clone(), stored.watermark, 1_000_000)).await?;
    let waiting: BTreeSet<_> =
        waiting.iter().map(|entry| entry.id).filter(|id| !stored.settles(*id)).collect();
    println!("{orders}: all up to {} is settled, {} entries wait", stored.watermark, waiting.len());

    // Ack and checkpoint are one atomic step, since one value is both stores.
    let consumer = || Consumer::fused(orders.clone(), Arc::clone(&redis)).build();
    let billing = Billing { until: waiting.len() / 2, crashes: true, ..Billing::default() };
    tokio::select! {
        ended = consumer()?.run(billing.clone(), pending::<()>()) => drop(ended?),
        // Drops the run, as a crash would: what it held stays pending, and its heartbeat stands until it runs out.
        () = billing.reached.notified() => println!("crashed at the {}th entry", billing.until),
    }
    let crashed_at = redis.load(&orders).await?.map(|checkpoint| checkpoint.position.watermark);

    let clock = Clock::started();
    let rest = Billing { until: waiting.len(), crashes: false, ..billing.clone() };
    let report = consumer()?.run(rest, billing.reached.notified()).await?;
    println!("another consumer took over, and was done after {:.1?}:\n{report:?}", clock.elapsed());

    assert_eq!(*billing.handled.lock().expect("not poisoned"), waiting, "every entry was handled");
    assert!(
        Some(stored.watermark) <= crashed_at && crashed_at <= report.watermark,
        "the watermark only rose"
    );
    assert_eq!(report.watermark, waiting.last().copied(), "the watermark is at the end");
    println!("all {} entries were handled, and the watermark is at the last", waiting.len());
    Ok(())
}
