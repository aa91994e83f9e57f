use std::time::Duration;

use super::*;
use crate::{
    ConsumerName, EntryId, Fields, Position, StreamName, Subscription,
    backend::{
        Ack, Append, Beat, CheckpointBackend, EnsureGroup, Heartbeat, NewEntry, Read, ReadGroup,
        StreamBackend, Token,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

fn subscription() -> Subscription {
    Subscription::new("s", "g").unwrap()
}

fn append() -> Append {
    let fields: Fields = [("a", "b")].into_iter().collect();
    Append::new(StreamName::new("s").unwrap(), vec![NewEntry::new(fields)])
}

fn who(n: usize) -> ConsumerName {
    ConsumerName::new(format!("c{n}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn paused_time_drives_waits_and_heartbeats() {
    let memory = Memory::new();
    let begun = memory.clock().elapsed();
    let read = Read::new(StreamName::new("s").unwrap(), EntryId::ZERO, 1).block(HOUR);
    assert_eq!(memory.read(&read).await.unwrap(), []);
    assert_eq!((memory.clock().elapsed() - begun).as_secs(), 3600);

    memory.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    let beat = Heartbeat::new(subscription(), who(0), Token(1), HOUR);
    assert_eq!(memory.heartbeat(&beat).await.unwrap(), Beat::Fresh);
    memory.clock().sleep(HOUR / 2).await;
    assert_eq!(memory.heartbeat(&beat).await.unwrap(), Beat::Unbroken);
    memory.clock().sleep(HOUR).await;
    assert_eq!(memory.heartbeat(&beat).await.unwrap(), Beat::Fresh);
}

#[tokio::test(start_paused = true)]
async fn each_clone_is_a_connection_of_its_own() {
    let first = Memory::new();
    let second = first.clone();
    let read = Read::new(StreamName::new("s").unwrap(), EntryId::ZERO, 1).block(HOUR);
    let close = async {
        tokio::task::yield_now().await;
        StreamBackend::close(&first).await;
    };
    let (blocked, ()) = tokio::join!(first.read(&read), close);
    assert_eq!(blocked.unwrap_err().kind(), ErrorKind::Closed, "closing wakes a blocked read");
    assert_eq!(first.append(&append()).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(first.load(&subscription()).await.unwrap_err().kind(), ErrorKind::Closed);
    second.append(&append()).await.unwrap();
    assert_eq!(first.clone().read(&read).await.unwrap().len(), 1, "the data outlives a connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_get_each_entry_once() {
    const ENTRIES: usize = 2000;
    let memory = Memory::new();
    memory.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    let mut producers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let memory = memory.clone();
        producers.spawn(async move {
            for _ in 0..ENTRIES / 4 {
                memory.append(&append()).await.unwrap().remove(0).unwrap();
            }
        });
    }
    let mut consumers = tokio::task::JoinSet::new();
    for n in 0..8 {
        let memory = memory.clone();
        consumers.spawn(async move {
            let read = ReadGroup::new(subscription(), who(n), 3).block(Duration::from_millis(300));
            let mut got = Vec::new();
            loop {
                let deliveries = memory.read_group(&read).await.unwrap();
                if deliveries.is_empty() {
                    return got;
                }
                let ids: Vec<_> = deliveries.iter().map(crate::Delivery::id).collect();
                memory.ack(&Ack::new(subscription(), ids.clone())).await.unwrap();
                got.extend(ids);
            }
        });
    }
    producers.join_all().await;
    let mut got = consumers.join_all().await.concat();
    got.sort();
    let all = memory.read(&Read::new(StreamName::new("s").unwrap(), EntryId::ZERO, ENTRIES)).await.unwrap();
    assert_eq!(got, all.iter().map(|entry| entry.id).collect::<Vec<_>>());
    assert_eq!(got.len(), ENTRIES);
    let position =
        memory.ack(&Ack::new(subscription(), Vec::new()).count(true)).await.unwrap().position.unwrap();
    assert_eq!((Some(&position.watermark), position.ordinal), (got.last(), Some(ENTRIES as u64)));
}
