//! The library with its defaults, and a handler that is called with each entry.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use highwater::{
    Consumer, Delivery, Subscription,
    backend::{CheckpointBackend, Inspect, StreamBackend},
};
use highwater_redis::Redis;
use tokio::sync::Notify;

use super::{PAYLOAD, STREAM};
use crate::Result;

/// A shared subscription, from the first entry until the checkpoint is at the last.
pub async fn shared(backend: Arc<Redis>, group: &str, entries: u64) -> Result {
    let (handler, done) = counting(entries);
    let consumer = Consumer::fused(Subscription::new(STREAM, group)?, backend).shared().build()?;
    consumer.run(handler, async move { done.notified().await }).await?;
    Ok(())
}

/// An exclusive subscription, likewise.
pub async fn exclusive(backend: Arc<Redis>, group: &str, entries: u64) -> Result {
    let (handler, done) = counting(entries);
    let consumer = Consumer::fused(Subscription::new(STREAM, group)?, backend).exclusive().build()?;
    consumer.run(handler, async move { done.notified().await }).await?;
    Ok(())
}

/// A shared subscription whose checkpoint is in another store.
pub async fn elsewhere(
    backend: Arc<Redis>,
    store: impl CheckpointBackend,
    group: &str,
    entries: u64,
) -> Result {
    let (handler, done) = counting(entries);
    let consumer = Consumer::builder(Subscription::new(STREAM, group)?, backend, store).shared().build()?;
    consumer.run(handler, async move { done.notified().await }).await?;
    Ok(())
}

/// A handler that looks at each payload, and says when it has seen all entries.
fn counting(entries: u64) -> (impl Fn(Delivery) -> std::future::Ready<io::Result<()>>, Arc<Notify>) {
    let seen = AtomicU64::new(0);
    let done = Arc::new(Notify::new());
    let all_seen = Arc::clone(&done);
    let handler = move |delivery: Delivery| {
        let right = delivery.fields().get("d").is_some_and(|payload| payload.len() == PAYLOAD);
        if seen.fetch_add(1, Ordering::Relaxed) + 1 == entries {
            all_seen.notify_one();
        }
        std::future::ready(if right { Ok(()) } else { Err(io::Error::other("the wrong payload")) })
    };
    (handler, done)
}

/// Whether the checkpoint says that all is settled.
pub async fn check(backend: &Redis, store: &dyn CheckpointBackend, group: &str) -> Result {
    let subscription = Subscription::new(STREAM, group)?;
    let state = backend.inspect(&Inspect::stream(subscription.stream.clone())).await?;
    let last = state.ok_or("the stream is gone")?.last_id;
    let checkpoint = store.load(&subscription).await?.ok_or("there is no checkpoint")?;
    match checkpoint.position.watermark {
        watermark if watermark == last => Ok(()),
        watermark => Err(format!("{group}: the checkpoint is at {watermark}, not at {last}").into()),
    }
}
