//! What is trimmed, when, and what is spared.

use std::time::Duration;

use super::*;
use crate::{
    ConsumerName, Epoch, Position, SettledAhead, Subscription,
    backend::{Advance, CheckpointBackend, TrimLimit},
    clock::Clock,
};

const DAY: Duration = Duration::from_hours(24);

fn keep(retention: Retention) -> ProducerSettings {
    ProducerSettings { retention, trim_interval: Duration::ZERO, ..ProducerSettings::default() }
}

async fn append(producer: &Producer<Arc<Double>>, count: u64) -> Vec<EntryId> {
    let results = producer.append_many((0..count).map(fields).collect()).await.unwrap();
    results.into_iter().map(Result::unwrap).collect()
}

async fn checkpoint(memory: &Memory, group: &str, position: Position) {
    let subscription = Subscription::new("s", group).unwrap();
    let advance = Advance::new(subscription, Epoch(0), position, ConsumerName::unique());
    memory.advance(&advance).await.unwrap();
}

async fn ids(memory: &Memory) -> Vec<EntryId> {
    let entries = memory.read(&Read::new(stream(), EntryId::ZERO, usize::MAX)).await.unwrap();
    entries.into_iter().map(|entry| entry.id).collect()
}

#[tokio::test(start_paused = true)]
async fn by_age_what_is_older_than_a_day_goes() {
    let clock = Clock::new();
    let _ = clock.elapsed();
    let double = Arc::new(Double::over(Memory::with_clock(clock.clone()), 1_000));
    let settings = ProducerSettings::default();
    let producer =
        Producer::builder(stream(), Arc::clone(&double)).settings(settings).clock(clock).build().unwrap();
    producer.append(fields("old")).await.unwrap();
    tokio::time::advance(DAY / 2).await;
    producer.append(fields("half")).await.unwrap();
    tokio::time::advance(DAY / 2).await;
    producer.append(fields("a day after the first")).await.unwrap();
    producer.flush().await.unwrap();
    settle().await;
    assert_eq!(held(&double.memory).await.len(), 3, "what is exactly as old as the limit stays");

    tokio::time::advance(Duration::from_secs(2)).await;
    producer.append(fields("new")).await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(held(&double.memory).await, ["half", "a day after the first", "new"]);
    assert_eq!(producer.stats().trimmed, 1);
    assert!(double.trims().iter().all(|trim| trim.approximate));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_removes_nothing_before_its_time() {
    let ahead = Clock::new();
    let _ = ahead.elapsed();
    tokio::time::advance(2 * DAY).await;
    // The wall clock has not moved, so this one is two days behind the other.
    let double = Arc::new(Double::over(Memory::with_clock(Clock::new()), 1_000));
    let producer = Producer::builder(stream(), Arc::clone(&double))
        .settings(keep(Retention::Age(DAY)))
        .clock(ahead)
        .build()
        .unwrap();
    append(&producer, 3).await;
    append(&producer, 3).await;
    producer.close().await.unwrap();
    assert_eq!((held(&double.memory).await.len(), producer.stats().trimmed), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn by_length_the_newest_stay() {
    let clock = Clock::new();
    let _ = clock.elapsed();
    let double = Arc::new(Double::open());
    let producer = producer(&double, keep(Retention::Len(3)));
    let appended = append(&producer, 10).await;
    producer.close().await.unwrap();
    assert_eq!(clock.elapsed(), Duration::ZERO, "a close waits for the trim and no longer");
    assert_eq!(ids(&double.memory).await, appended[7..]);
    assert_eq!((producer.stats().trims, producer.stats().trimmed), (1, 7));
    assert_eq!(double.trims()[0].limit, TrimLimit::Len(3));
}

#[tokio::test]
async fn for_ever_asks_for_no_trim() {
    let double = Arc::new(Double::open());
    let producer = producer(&double, keep(Retention::Forever));
    append(&producer, 10).await;
    producer.close().await.unwrap();
    assert!(double.trims().is_empty());
}

#[tokio::test(start_paused = true)]
async fn trims_keep_their_interval() {
    let double = Arc::new(Double::open());
    let trim_interval = Duration::from_secs(1);
    let producer = producer(&double, ProducerSettings { trim_interval, ..keep(Retention::Len(1)) });
    for _ in 0..20 {
        append(&producer, 1).await;
        settle().await;
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(double.trims().len(), 2, "20 appends in 2 seconds");
}

#[tokio::test]
async fn an_append_does_not_wait_for_a_trim() {
    let double = Arc::new(Double::open());
    let all = double.trim_gate.forget_permits(usize::MAX);
    let producer = producer(&double, keep(Retention::Len(1)));
    append(&producer, 3).await;
    until(|| double.trims().len() == 1).await;
    append(&producer, 3).await;
    append(&producer, 3).await;
    assert_eq!((double.batches().len(), double.trims().len()), (3, 1), "one trim at a time");
    double.trim_gate.add_permits(all);
    producer.close().await.unwrap();
    assert_eq!(held(&double.memory).await.len(), 1);
}

#[tokio::test]
async fn a_trim_stops_at_the_lowest_watermark() {
    let double = Arc::new(Double::open());
    let stores = [Memory::new(), Memory::new()];
    let producer = Producer::builder(stream(), Arc::clone(&double))
        .settings(keep(Retention::Len(1)))
        .protect(Arc::new(stores[0].clone()))
        .protect(Arc::new(stores[1].clone()))
        .build()
        .unwrap();
    let slow = Position::at(EntryId::ZERO);
    checkpoint(&stores[0], "ahead", Position::at(EntryId::MAX)).await;
    checkpoint(&stores[1], "slow", slow).await;
    let appended = append(&producer, 10).await;
    producer.flush().await.unwrap();
    until(|| producer.stats().trims == 1).await;
    assert_eq!(ids(&double.memory).await, appended, "nothing is settled yet");

    // What is settled above the watermark stays as well: there are holes between.
    let ahead = SettledAhead::new(appended[8], [appended[4]]);
    checkpoint(&stores[1], "slow", Position::at(appended[3]).with_ahead(ahead)).await;
    checkpoint(&stores[0], "fast", Position::at(appended[7])).await;
    checkpoint(&stores[1], "a little faster", Position::at(appended[5])).await;
    let more = append(&producer, 1).await;
    until(|| producer.stats().trims == 2).await;
    assert_eq!(ids(&double.memory).await, [&appended[4..], &more].concat());
    assert_eq!(double.trims()[1].keep_from, appended[3].next());

    for (store, group) in [(0, "fast"), (1, "slow"), (1, "a little faster")] {
        checkpoint(&stores[store], group, Position::at(more[0])).await;
    }
    let last = append(&producer, 1).await;
    producer.close().await.unwrap();
    assert_eq!(ids(&double.memory).await, last);
}

#[tokio::test]
async fn a_forced_trim_asks_nobody() {
    let double = Arc::new(Double::open());
    let store = Memory::new();
    checkpoint(&store, "slow", Position::at(EntryId::ZERO)).await;
    let producer = Producer::builder(stream(), Arc::clone(&double))
        .settings(ProducerSettings { force_trim: true, ..keep(Retention::Len(2)) })
        .protect(Arc::new(store))
        .build()
        .unwrap();
    let appended = append(&producer, 10).await;
    producer.close().await.unwrap();
    assert_eq!(ids(&double.memory).await, appended[8..]);
}

#[tokio::test]
async fn a_store_that_cannot_answer_holds_the_trim_and_not_the_append() {
    let double = Arc::new(Double::open());
    let closed = Memory::new();
    CheckpointBackend::close(&closed).await;
    let producer = Producer::builder(stream(), Arc::clone(&double))
        .settings(keep(Retention::Len(1)))
        .protect(Arc::new(Memory::new()))
        .protect(Arc::new(closed))
        .build()
        .unwrap();
    append(&producer, 5).await;
    producer.close().await.unwrap();
    assert_eq!(held(&double.memory).await.len(), 5);
    assert!(double.trims().is_empty());
    assert_eq!((producer.stats().trims_skipped, producer.stats().appended), (1, 5));
}

#[tokio::test]
async fn a_trim_that_fails_is_counted_and_tried_again() {
    let double = Arc::new(Double::open());
    let producer = producer(&double, keep(Retention::Len(1)));
    double.trims_to_fail(1);
    append(&producer, 5).await;
    until(|| producer.stats().trims_failed == 1).await;
    append(&producer, 5).await;
    producer.close().await.unwrap();
    assert_eq!((producer.stats().trims, producer.stats().trimmed), (1, 9));
}
