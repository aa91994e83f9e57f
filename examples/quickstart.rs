//! A stream in one file: consumed, interrupted in the middle of an entry, and resumed. No server needed.
//! Run it twice: `cargo run --example quickstart [file]`

use std::sync::{Arc, mpsc};
use std::{collections::BTreeSet, env, error::Error, fs, future::pending, path::PathBuf};

use highwater::{Consumer, EntryId, Fields, Handler, HandlerError, Producer, backend::*, clock::Clock};
use highwater::{Delivery, Observation, Subscription};
use highwater_sqlite::Sqlite;
use tokio::sync::Notify;

/// Notes what it has handled. At the entry `until` it says so and, if it is to crash, never gets further.
#[derive(Clone)]
struct Billing {
    handled: mpsc::Sender<EntryId>,
    until: EntryId,
    reached: Arc<Notify>,
    crashes: bool,
}

impl Handler for Billing {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        if delivery.id() == self.until {
            self.reached.notify_one();
            if self.crashes {
                pending::<()>().await;
            }
        }
        Ok(self.handled.send(delivery.id())?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args_os().nth(1).map_or("target/quickstart.highwater.db".into(), PathBuf::from);
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let sqlite = Sqlite::open(&path).await?;
    let orders = Subscription::new("orders", "billing")?;
    let start = sqlite.load(&orders).await?.map_or(EntryId::ZERO, |checkpoint| checkpoint.position.watermark);
    // It keeps entries for 24 hours, and longer while the checkpoint needs them.
    let producer = Producer::builder(orders.stream.clone(), sqlite.clone()).protect(Arc::new(sqlite.clone()));
    let producer = producer.build()?;
    let entries = |count: u32| (1..=count).map(|n| Fields::from_iter([("order", n.to_string())])).collect();
    producer.append_many(entries(1_000)).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let waiting = sqlite.read(&Read::new(orders.stream.clone(), start, 1_000_000)).await?;
    let waiting: Vec<_> = waiting.iter().map(|entry| entry.id).collect();
    println!("{}: all up to {start} is settled, {} entries wait", path.display(), waiting.len());
    let ((handled, was_handled), (rises, rose)) = (mpsc::channel(), mpsc::channel());
    let consumer = || {
        let rises = rises.clone();
        let observer = move |_: &Subscription, seen: &Observation<'_>| {
            if let Observation::Advanced { watermark, .. } = seen {
                let _ = rises.send(*watermark);
            }
        };
        Consumer::fused(orders.clone(), sqlite.clone()).exclusive().observer(observer).build()
    };
    let (reached, until) = (Arc::new(Notify::new()), waiting[waiting.len() / 2]);
    let crashing = Billing { handled, until, reached: Arc::clone(&reached), crashes: true };
    tokio::select! {
        ended = consumer()?.run(crashing.clone(), pending::<()>()) => drop(ended?),
        // Drops the run, as a crash would: nothing more is saved, and its lease stands until it runs out.
        () = reached.notified() => println!("crashed in the middle of {until}"),
    }
    let clock = Clock::started();
    let billing = Billing { until: waiting[waiting.len() - 1], crashes: false, ..crashing };
    let report = consumer()?.run(billing, reached.notified()).await?;
    println!("resumed behind the dead owner's lease, and done after {:.1?}:\n{report:?}", clock.elapsed());
    let (handled, rose): (Vec<_>, Vec<_>) = (was_handled.try_iter().collect(), rose.try_iter().collect());
    let distinct: BTreeSet<_> = handled.iter().copied().collect();
    assert!(distinct.iter().eq(&waiting), "every entry was handled, and none that had been settled before");
    assert!([start].iter().chain(&rose).is_sorted(), "the watermark only rose");
    assert_eq!(rose.last(), waiting.last(), "the watermark is at the end");
    let again = handled.len() - waiting.len();
    println!("{} were handled, {again} of them twice: handled, but not in the checkpoint yet", waiting.len());
    producer.append_many(entries(100)).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("100 more wait for the next run");
    Ok(producer.close().await?)
}
