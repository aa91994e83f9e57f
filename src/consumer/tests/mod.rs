//! The whole runtime over the reference backend, in paused time.

mod calm;
mod dead;
mod delivery;
mod ownership;
mod readers;
mod resume;
mod review;
mod stop;
mod tasks;
mod transactional;
mod verdicts;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::oneshot;

use super::*;
use crate::{Delivery, EntryId, Fields, Memory, Result, StreamName, Subscription, backend::*, clock::Clock};

fn subscription() -> Subscription {
    Subscription::new("s", "g").unwrap()
}

async fn append(memory: &Memory, count: u64) {
    let start = match memory.inspect(&Inspect::stream(subscription().stream)).await.unwrap() {
        Some(state) => state.entries_added.unwrap(),
        None => 0,
    };
    let entries = (start + 1..=start + count)
        .map(|n| NewEntry::new(Fields::from_iter([("n", n.to_string())])).with_id(EntryId::new(n, 0)))
        .collect();
    for result in memory.append(&Append::new(StreamName::new("s").unwrap(), entries)).await.unwrap() {
        result.unwrap();
    }
}

async fn watermark(memory: &Memory) -> Option<EntryId> {
    memory.load(&subscription()).await.unwrap().map(|checkpoint| checkpoint.position.watermark)
}

/// Records what it is called with and stops the run after so many.
#[derive(Clone)]
struct Recorder {
    seen: Arc<Mutex<Vec<u64>>>,
    until: usize,
    stop: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Recorder {
    fn until(count: usize) -> (Self, impl Future<Output = ()> + Send) {
        let (stop, stopped) = oneshot::channel();
        let recorder = Self { seen: Arc::default(), until: count, stop: Arc::new(Mutex::new(Some(stop))) };
        // In paused time a run that waits for what never comes would go on for ever.
        let stopped = async {
            let clock = Clock::new();
            tokio::select! {
                _ = stopped => {}
                () = clock.sleep(Duration::from_secs(3_000)) => {}
            }
        };
        (recorder, stopped)
    }

    fn record(&self, delivery: &Delivery) {
        let mut seen = self.seen.lock().unwrap();
        seen.push(delivery.id().ms);
        if seen.len() == self.until
            && let Some(stop) = self.stop.lock().unwrap().take()
        {
            let _ = stop.send(());
        }
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }
}

impl Handler for Recorder {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        self.record(&delivery);
        Ok(())
    }
}

fn both() -> [Ownership; 2] {
    [Ownership::Shared, Ownership::Exclusive]
}

fn builder(memory: &Memory, ownership: Ownership) -> Builder<Arc<Memory>, Arc<Memory>> {
    Consumer::fused(subscription(), memory.clone()).configure(|settings| settings.ownership = ownership)
}

/// Stops a run from outside.
fn stopper() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send) {
    let (stop, stopped) = oneshot::channel();
    (stop, async { drop(stopped.await) })
}

/// Waits, in paused time, until the condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let clock = Clock::new();
    while !holds().await {
        assert!(clock.elapsed() < Duration::from_secs(600), "not in ten minutes: {what}");
        clock.sleep(Duration::from_millis(5)).await;
    }
}

fn to(n: u64) -> Vec<u64> {
    (1..=n).collect()
}
