//! What an operator does, over the reference backend and in paused time.

mod letters;
mod moves;
mod skip;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::{
    Builder, Checkpoint, Consumer, ConsumerName, Delivery, EntryId, Epoch, ErrorKind, Fields, HandlerError,
    Memory, Ownership, Position, Report, Result, SettledAhead, Subscription, backend::*, clock::Clock,
};

fn subscription() -> Subscription {
    Subscription::new("s", "g").unwrap()
}

fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

fn both() -> [Ownership; 2] {
    [Ownership::Shared, Ownership::Exclusive]
}

/// A stream with these entries.
async fn with(numbers: std::ops::RangeInclusive<u64>) -> Memory {
    let memory = Memory::new();
    append(&memory, numbers).await;
    memory
}

async fn append(memory: &Memory, numbers: std::ops::RangeInclusive<u64>) {
    let entries =
        numbers.map(|n| NewEntry::new(Fields::from_iter([("n", n.to_string())])).with_id(id(n))).collect();
    for appended in memory.append(&Append::new(subscription().stream, entries)).await.unwrap() {
        appended.unwrap();
    }
}

fn operator(memory: &Memory) -> Operator {
    Operator::new(subscription(), memory.clone(), memory.clone())
}

async fn stored(memory: &Memory) -> Checkpoint {
    memory.load(&subscription()).await.unwrap().unwrap()
}

/// Of 20 entries, all are settled but 11 and 15, by consumers that are gone. Exclusive, the checkpoint alone knows.
async fn with_holes(memory: &Memory, ownership: Ownership) {
    let name = ConsumerName::new("gone").unwrap();
    if ownership == Ownership::Shared {
        memory.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
        memory.read_group(&ReadGroup::new(subscription(), name.clone(), 20)).await.unwrap();
        let ids = (1..=20).filter(|n| ![11, 15].contains(n)).map(id).collect();
        memory.ack(&Ack::new(subscription(), ids)).await.unwrap();
        let beat = Heartbeat::new(subscription(), name.clone(), Token(7), Duration::from_secs(3));
        memory.heartbeat(&beat).await.unwrap();
        memory.leave(&Leave::new(subscription(), name.clone(), Token(7))).await.unwrap();
    }
    let position = Position::at(id(10)).with_ordinal(Some(10));
    let position = position.with_ahead(SettledAhead::new(id(20), [id(11), id(15)]));
    memory.advance(&Advance::new(subscription(), Epoch(0), position, name)).await.unwrap();
}

/// A consumer that runs until it is stopped, and what it was called with.
struct Running {
    seen: Arc<Mutex<Vec<u64>>>,
    pauses: Arc<Mutex<Vec<Option<String>>>>,
    stop: oneshot::Sender<()>,
    run: JoinHandle<Result<Report>>,
}

impl Running {
    fn start(memory: &Memory, ownership: Ownership) -> Self {
        Self::build(Consumer::fused(subscription(), memory.clone()), ownership)
    }

    fn build<S: StreamBackend, C: CheckpointBackend>(builder: Builder<S, C>, ownership: Ownership) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (seen, pauses) =
            (Arc::<Mutex<Vec<u64>>>::default(), Arc::<Mutex<Vec<Option<String>>>>::default());
        let (recorded, told) = (Arc::clone(&seen), Arc::clone(&pauses));
        let handler = move |delivery: Delivery| {
            recorded.lock().unwrap().push(delivery.id().ms);
            std::future::ready(Ok::<_, HandlerError>(()))
        };
        let consumer = builder
            .configure(|settings| settings.ownership = ownership)
            .observer(move |_: &Subscription, observation: &crate::Observation<'_>| {
                if let crate::Observation::Paused { reason } = observation {
                    told.lock().unwrap().push(reason.map(ToOwned::to_owned));
                }
            })
            .build()
            .unwrap();
        let run = tokio::spawn(consumer.run(handler, async { drop(stopped.await) }));
        Self { seen, pauses, stop, run }
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }

    /// In whatever order: what is claimed comes beside what is new.
    async fn until_seen(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut expected: Vec<_> = numbers.into_iter().collect();
        expected.sort_unstable();
        let (clock, mut seen) = (Clock::started(), self.seen());
        while seen.len() < expected.len() && clock.elapsed() < Duration::from_secs(60) {
            clock.sleep(Duration::from_millis(5)).await;
            seen = self.seen();
        }
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }

    async fn stop(self) -> Report {
        let clock = Clock::started();
        self.stop.send(()).unwrap();
        let report = self.run.await.unwrap().unwrap();
        assert!(clock.elapsed() < Duration::from_millis(200), "{:?}", clock.elapsed());
        report
    }
}

async fn sleep(seconds: u64) {
    Clock::new().sleep(Duration::from_secs(seconds)).await;
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let clock = Clock::started();
    while !holds().await {
        assert!(clock.elapsed() < Duration::from_secs(60), "not in a minute: {what}");
        clock.sleep(Duration::from_millis(5)).await;
    }
}
