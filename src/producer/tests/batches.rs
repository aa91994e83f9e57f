//! Order, batches, and the window.

use std::{collections::HashSet, time::Duration};

use futures_util::{future::join_all, poll};
use proptest::prelude::*;

use super::{super::queue, *};
use crate::backend::NewEntry;

#[tokio::test]
async fn what_comes_while_a_batch_is_on_its_way_shares_the_next() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, settings());
    let mut appends: Vec<_> = (0..101).map(|n| Box::pin(producer.append(fields(n)))).collect();
    assert!(poll!(&mut appends[0]).is_pending());
    until(|| double.batches().len() == 1).await;
    for append in &mut appends[1..] {
        assert!(poll!(append).is_pending());
    }
    settle().await;
    double.let_all_pass();
    let ids: Vec<_> = join_all(appends).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.is_sorted());
    assert_eq!(*double.batches(), [1, 100]);
    assert_eq!(held(&double.memory).await, (0..101).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_has_gathered_is_cut_into_batches_by_count_and_by_bytes() {
    for (batch_entries_max, batch_bytes_max, expected) in
        [(4, 1_000, vec![1, 4, 4, 1]), (1_000, 24, vec![1, 6, 3]), (5, 16, vec![1, 4, 4, 1])]
    {
        let double = Arc::new(Double::gated());
        let limits =
            ProducerSettings { payload_bytes_max: 8, batch_entries_max, batch_bytes_max, ..settings() };
        let producer = producer(&double, limits);
        let mut appends: Vec<_> = (100..110).map(|n| Box::pin(producer.append(fields(n)))).collect();
        assert!(poll!(&mut appends[0]).is_pending());
        until(|| double.batches().len() == 1).await;
        for append in &mut appends[1..] {
            assert!(poll!(append).is_pending());
        }
        double.let_all_pass();
        assert!(join_all(appends).await.iter().map(|id| id.as_ref().unwrap()).is_sorted());
        assert_eq!(*double.batches(), expected);
    }
}

#[tokio::test]
async fn a_call_that_does_not_fit_any_more_goes_into_the_next_batch() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, ProducerSettings { batch_entries_max: 4, ..settings() });
    let mut calls: Vec<_> = [1, 3, 3]
        .map(|count| Box::pin(producer.append_many((0..count).map(fields).collect())))
        .into_iter()
        .collect();
    assert!(poll!(&mut calls[0]).is_pending());
    until(|| double.batches().len() == 1).await;
    assert!(poll!(&mut calls[1]).is_pending() && poll!(&mut calls[2]).is_pending());
    double.let_all_pass();
    join_all(calls).await;
    assert_eq!(*double.batches(), [1, 3, 3]);
    assert_eq!(held(&double.memory).await, ["0", "0", "1", "2", "0", "1", "2"]);
}

#[tokio::test]
async fn entries_of_one_call_keep_to_the_limits_and_their_order() {
    let double = Arc::new(Double::open());
    let limits = ProducerSettings {
        batch_entries_max: 10,
        payload_bytes_max: 8,
        batch_bytes_max: 24,
        in_flight_entries_max: 7,
        in_flight_bytes_max: 24,
        ..settings()
    };
    let producer = producer(&double, limits);
    // Each has a name of one byte and a value of three: six fill 24 bytes.
    let numbers: Vec<_> = (100..200).collect();
    let results = producer.append_many(numbers.iter().map(fields).collect()).await.unwrap();
    let ids: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert!(ids.is_sorted() && ids.len() == 100);
    assert_eq!(held(&double.memory).await, numbers.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(double.batches().iter().all(|&entries| entries <= 6), "{:?}", double.batches());
    assert_eq!(producer.append_many(Vec::new()).await.unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_linger_waits_for_company_and_no_longer() {
    let double = Arc::new(Double::open());
    let linger = Duration::from_millis(50);
    let producer = producer(&double, ProducerSettings { linger, batch_entries_max: 3, ..settings() });
    let clock = crate::clock::Clock::new();
    let _ = clock.elapsed();

    producer.append(fields(0)).await.unwrap();
    assert_eq!(clock.elapsed(), linger, "a lone entry waits the whole linger");
    join_all((1..4).map(|n| producer.append(fields(n)))).await;
    assert_eq!(clock.elapsed(), linger, "a full batch does not wait");

    let mut append = Box::pin(producer.append(fields(4)));
    assert!(poll!(&mut append).is_pending());
    producer.flush().await.unwrap();
    assert_eq!(clock.elapsed(), linger, "a flush does not wait");
    append.await.unwrap();

    let mut append = Box::pin(producer.append(fields(5)));
    assert!(poll!(&mut append).is_pending());
    producer.close().await.unwrap();
    assert_eq!(clock.elapsed(), linger, "a close does not wait");
    append.await.unwrap();
    assert_eq!(*double.batches(), [1, 3, 1, 1]);
}

#[tokio::test]
async fn callers_wait_while_too_many_entries_are_in_flight() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, ProducerSettings { in_flight_entries_max: 3, ..settings() });
    let mut appends: Vec<_> = (0..9).map(|n| Box::pin(producer.append(fields(n)))).collect();
    for append in &mut appends {
        assert!(poll!(append).is_pending());
    }
    settle().await;
    assert_eq!(*double.batches(), [3], "the others have no place yet");
    // One that waits for a place leaves nothing behind.
    drop(appends.remove(4));
    double.let_all_pass();
    assert!(join_all(appends).await.iter().all(Result::is_ok));
    assert!(double.batches().iter().all(|&entries| entries <= 3));
    assert_eq!(held(&double.memory).await, ["0", "1", "2", "3", "5", "6", "7", "8"]);
}

#[tokio::test]
async fn callers_wait_while_too_many_bytes_are_in_flight() {
    let double = Arc::new(Double::gated());
    let limits = ProducerSettings {
        payload_bytes_max: 10,
        batch_bytes_max: 10,
        in_flight_bytes_max: 10,
        ..settings()
    };
    let producer = producer(&double, limits);
    let large = |n: u64| fields(1_000_000 + n);
    let mut first = Box::pin(producer.append(large(0)));
    let mut second = Box::pin(producer.append(large(1)));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    settle().await;
    assert_eq!(*double.batches(), [1]);
    double.let_all_pass();
    assert!(first.await.unwrap() < second.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_publishers_keep_each_their_order() {
    let double = Arc::new(Double::open());
    let limits = ProducerSettings { in_flight_entries_max: 32, batch_entries_max: 16, ..settings() };
    let producer = producer(&double, limits);
    let publishers = (0..100).map(|publisher| {
        let producer = producer.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..20 {
                ids.push(producer.append(fields(format!("{publisher}:{n}"))).await.unwrap());
            }
            assert!(ids.is_sorted());
            ids
        })
    });
    let ids: HashSet<_> = join_all(publishers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(ids.len(), 2_000, "every id is the answer of one append");
    producer.close().await.unwrap();

    let held = held(&double.memory).await;
    assert_eq!(held.len(), 2_000);
    for publisher in 0..100 {
        let own = held.iter().filter_map(|n| n.strip_prefix(&format!("{publisher}:")));
        assert!(own.map(|n| n.parse::<u32>().unwrap()).eq(0..20), "publisher {publisher}");
    }
    let stats = producer.stats();
    assert_eq!((stats.appended, stats.batches), (2_000, double.batches().len() as u64));
}

#[tokio::test]
async fn a_producer_over_a_chosen_backend() {
    let memory = Memory::new();
    let chosen: Arc<dyn StreamBackend> = Arc::new(memory.clone());
    let producer: Producer<Arc<dyn StreamBackend>> = Producer::new(stream(), chosen).unwrap();
    producer.append(fields(1)).await.unwrap();
    assert_eq!(
        (held(&memory).await.len(), producer.stream(), producer.backend().name()),
        (1, &stream(), "memory")
    );
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_typed_payload_comes_back() {
    use crate::codec::{self, Json};

    let memory = Memory::new();
    let producer = Producer::new(stream(), memory.clone()).unwrap();
    producer.append_typed::<Json, _>(&("a", 1)).await.unwrap();
    producer.append_json(&("b", 2)).await.unwrap();
    let entries = memory.read(&Read::new(stream(), EntryId::ZERO, 10)).await.unwrap();
    let values: Vec<(String, u8)> =
        entries.iter().map(|entry| codec::decode::<_, Json>(&entry.fields).unwrap()).collect();
    assert_eq!(values, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
}

proptest! {
    #[test]
    fn jobs_are_within_a_batch_and_lose_nothing(
        sizes in prop::collection::vec(0..=20_usize, 0..60),
        batch_entries_max in 1..10_usize,
        in_flight_entries_max in 1..10_usize,
        batch_bytes_max in 21..60_usize,
    ) {
        let limits = ProducerSettings { batch_entries_max, batch_bytes_max, in_flight_entries_max, ..settings() };
        let entries: Vec<_> =
            sizes.iter().map(|&size| NewEntry::new([("", vec![0; size])].into_iter().collect())).collect();
        let jobs = queue::split(entries.clone(), &limits);
        for (job, bytes) in &jobs {
            prop_assert!(!job.is_empty() && job.len() <= batch_entries_max.min(in_flight_entries_max));
            prop_assert_eq!(*bytes, job.iter().map(|entry| entry.fields.size()).sum::<usize>());
            prop_assert!(*bytes <= batch_bytes_max);
        }
        prop_assert_eq!(jobs.into_iter().flat_map(|(job, _)| job).collect::<Vec<_>>(), entries);
    }
}
