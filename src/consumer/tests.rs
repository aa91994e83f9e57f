//! The whole runtime over the reference backend, in paused time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tokio::sync::oneshot;

use super::*;
use crate::{
    ConsumerName, Delivery, EntryId, ErrorKind, Fields, Memory, Result, StreamName, Subscription, backend::*,
    clock::Clock,
};

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
        (recorder, async { drop(stopped.await) })
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

#[tokio::test(start_paused = true)]
async fn a_stream_is_consumed_and_resumed() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 100).await;
        let (recorder, stop) = Recorder::until(50);
        let report = builder(&memory, ownership).build().unwrap().run(recorder.clone(), stop).await.unwrap();
        let first = recorder.seen();
        assert_eq!(report.settled as usize, first.len());
        assert_eq!(watermark(&memory).await.unwrap().ms, first.len() as u64, "{ownership:?}");
        append(&memory, 20).await;
        let (rest, stop) = Recorder::until(120 - first.len());
        builder(&memory, ownership).build().unwrap().run(rest.clone(), stop).await.unwrap();
        let all: Vec<_> = first.into_iter().chain(rest.seen()).collect();
        assert_eq!(all, (1..=120).collect::<Vec<_>>(), "{ownership:?}");
    }
}
