//! Dropped futures, flush, close, and the last handle.

use std::time::Duration;

use futures_util::{future::join_all, poll};
use proptest::prelude::*;

use super::*;
use crate::{ErrorKind, Outcome, clock::Clock};

#[tokio::test]
async fn a_dropped_append_disturbs_no_other() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, settings());
    let mut appends: Vec<_> = (0..6).map(|n| Box::pin(producer.append(fields(n)))).collect();
    // One that was never polled is not appended; one that waits for its answer is.
    drop(appends.remove(0));
    for append in &mut appends {
        assert!(poll!(append).is_pending());
    }
    until(|| !double.batches().is_empty()).await;
    drop(appends.remove(2));
    double.let_all_pass();
    let ids: Vec<_> = join_all(appends).await.into_iter().map(Result::unwrap).collect();
    producer.flush().await.unwrap();

    let entries = double.memory.read(&Read::new(stream(), EntryId::ZERO, 10)).await.unwrap();
    assert_eq!(held(&double.memory).await, ["1", "2", "3", "4", "5"]);
    let own: Vec<_> = [0, 1, 3, 4].map(|i: usize| entries[i].id).into();
    assert_eq!(ids, own, "every answer is that of its own entry");
}

#[tokio::test]
async fn a_dropped_append_many_leaves_a_prefix() {
    let double = Arc::new(Double::gated());
    let limits = ProducerSettings { batch_entries_max: 2, in_flight_entries_max: 4, ..settings() };
    let producer = producer(&double, limits);
    let mut append = Box::pin(producer.append_many((0..10).map(fields).collect()));
    assert!(poll!(&mut append).is_pending());
    settle().await;
    drop(append);
    double.let_all_pass();
    producer.append(fields("next")).await.unwrap();
    assert_eq!(held(&double.memory).await, ["0", "1", "2", "3", "next"]);
}

#[tokio::test]
async fn a_dropped_flush_or_close_ends_the_wait_alone() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, settings());
    let mut append = Box::pin(producer.append(fields(0)));
    assert!(poll!(&mut append).is_pending());
    {
        let mut flush = Box::pin(producer.flush());
        assert!(poll!(&mut flush).is_pending());
    }
    {
        let mut close = Box::pin(producer.close());
        assert!(poll!(&mut close).is_pending());
    }
    let error = producer.append(fields(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotApplied));
    double.let_all_pass();
    append.await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(held(&double.memory).await, ["0"]);
}

#[tokio::test]
async fn a_flush_waits_for_what_was_queued_before() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, settings());
    let mut appends: Vec<_> = (0..3).map(|n| Box::pin(producer.append(fields(n)))).collect();
    for append in &mut appends {
        assert!(poll!(append).is_pending());
    }
    let mut flush = Box::pin(producer.flush());
    settle().await;
    assert!(poll!(&mut flush).is_pending());
    double.let_all_pass();
    flush.await.unwrap();
    assert_eq!(held(&double.memory).await.len(), 3);
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn a_close_drains_the_queue_and_turns_away_who_waits() {
    let double = Arc::new(Double::gated());
    let limits = ProducerSettings { in_flight_entries_max: 4, batch_entries_max: 2, ..settings() };
    let producer = producer(&double, limits);
    let mut appends: Vec<_> = (0..6).map(|n| Box::pin(producer.append(fields(n)))).collect();
    for append in &mut appends {
        assert!(poll!(append).is_pending());
    }
    let mut close = Box::pin(producer.close());
    assert!(poll!(&mut close).is_pending());
    settle().await;
    assert!(poll!(&mut close).is_pending(), "entries are on their way");
    double.let_all_pass();
    close.await.unwrap();
    producer.close().await.unwrap();
    let results = join_all(appends).await;
    assert!(results[..4].iter().all(Result::is_ok));
    for result in &results[4..] {
        let error = result.as_ref().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotApplied));
    }
    assert_eq!(held(&double.memory).await, ["0", "1", "2", "3"]);
    assert_eq!(producer.append_many(vec![fields(9)]).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(producer.flush().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_close_gives_up_after_its_time_and_says_what() {
    let double = Arc::new(Double::gated());
    let drain_max = Duration::from_secs(3);
    let producer = producer(&double, ProducerSettings { batch_entries_max: 2, drain_max, ..settings() });
    let mut appends: Vec<_> = (0..5).map(|n| Box::pin(producer.append(fields(n)))).collect();
    for append in &mut appends {
        assert!(poll!(append).is_pending());
    }
    let clock = Clock::new();
    let _ = clock.elapsed();
    let error = producer.close().await.unwrap_err();
    assert_eq!(clock.elapsed(), drain_max);
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    assert_eq!((error.context("unknown"), error.context("unsent")), (Some("2"), Some("3")));
    let errors: Vec<_> = join_all(appends).await.into_iter().map(Result::unwrap_err).collect();
    assert!(errors[..2].iter().all(|error| error.outcome() == Outcome::Unknown));
    assert!(errors[2..].iter().all(|error| error.outcome() == Outcome::NotApplied));
    assert_eq!((producer.stats().unknown, producer.stats().failed), (2, 3));
}

#[tokio::test]
async fn what_is_queued_is_sent_after_the_last_handle_is_gone() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, settings());
    {
        let mut appends: Vec<_> = (0..3).map(|n| Box::pin(producer.append(fields(n)))).collect();
        for append in &mut appends {
            assert!(poll!(append).is_pending());
        }
    }
    drop(producer);
    double.let_all_pass();
    // The task holds the last other reference, so it has ended when there is none.
    until(|| Arc::strong_count(&double) == 1).await;
    assert_eq!(held(&double.memory).await, ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_without_handles_does_not_wait_for_ever() {
    let double = Arc::new(Double::gated());
    let producer = producer(&double, settings());
    {
        let mut append = Box::pin(producer.append(fields(0)));
        assert!(poll!(&mut append).is_pending());
    }
    drop(producer);
    Clock::new().sleep(settings().drain_max * 2).await;
    assert_eq!(Arc::strong_count(&double), 1);
}

#[test]
fn outside_of_a_runtime_it_says_so() {
    let error = Producer::new(stream(), Memory::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("runtime"));
}

#[test]
fn an_append_outlives_its_runtime_as_an_error() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = runtime();
    let producer = first.block_on(async { Producer::new(stream(), Memory::new()).unwrap() });
    drop(first);
    let error = runtime().block_on(producer.append(fields(0))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn invalid_settings_build_nothing() {
    let bad = ProducerSettings { payload_bytes_max: 0, ..settings() };
    let error = Producer::builder(stream(), Memory::new()).settings(bad).build().unwrap_err();
    assert_eq!((error.kind(), error.context("setting")), (ErrorKind::Invalid, Some("payload_bytes_max")));
}

proptest! {
    /// Each append is polled some times and then dropped or awaited, while the gate opens bit by bit.
    #[test]
    fn any_append_may_be_dropped_at_any_await(
        plan in prop::collection::vec((0..5_u8, any::<bool>(), any::<bool>()), 1..60),
        in_flight_entries_max in 1..8_usize,
        batch_entries_max in 1..8_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let double = Arc::new(Double::gated());
            let limits = ProducerSettings { in_flight_entries_max, batch_entries_max, ..settings() };
            let producer = producer(&double, limits);
            let mut kept = Vec::new();
            let mut never_polled = Vec::new();
            for (n, &(polls, keep, open)) in plan.iter().enumerate() {
                let mut append = Box::pin(producer.append(fields(n)));
                let mut answer = None;
                for _ in 0..polls {
                    if answer.is_none() && let std::task::Poll::Ready(id) = poll!(&mut append) {
                        answer = Some(id.unwrap());
                    }
                    tokio::task::yield_now().await;
                }
                if open {
                    double.gate.add_permits(1);
                }
                if polls == 0 && !keep {
                    never_polled.push(n.to_string());
                }
                if keep {
                    kept.push((n, answer, append));
                }
            }
            double.let_all_pass();
            // All at once: one that nobody polls may hold the place that another waits for.
            let answers = join_all(kept.into_iter().map(async |(n, answer, append)| match answer {
                Some(id) => (id, n.to_string()),
                None => (append.await.unwrap(), n.to_string()),
            }))
            .await;
            producer.close().await.unwrap();

            let entries = double.memory.read(&Read::new(stream(), EntryId::ZERO, 100)).await.unwrap();
            let held = held(&double.memory).await;
            for (id, n) in answers {
                let own = entries.iter().position(|entry| entry.id == id).map(|at| held[at].clone());
                assert_eq!(own, Some(n), "an answer is that of its own entry");
            }
            let distinct: std::collections::HashSet<_> = held.iter().collect();
            assert_eq!(distinct.len(), held.len(), "nothing was appended twice");
            assert!(never_polled.iter().all(|n| !distinct.contains(n)));
        });
    }
}
