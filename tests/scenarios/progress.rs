//! What the checkpoint says, and when: never more than was handled, and all of it in the end.

use std::{future::pending, time::Duration};

use futures_util::StreamExt;
use highwater::{
    CheckpointPolicy, ConsumerName, Delivery, ErrorKind, HandlerError, OnExhausted, Ownership,
    layer::{Fault, Faults, Layer, Operation},
};

use super::stage::*;
use crate::{
    delivery::{Running, number},
    support::eventually,
};

/// Calls of a checkpoint store go through these faults.
fn with_faulty_checkpoints(mut case: Case) -> (Case, Faults) {
    let faults = Faults::new();
    case.place.checkpoints = std::sync::Arc::new(faults.clone().wrap(case.place.checkpoints));
    (case, faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_what_was_delivered_and_not_handled_comes_again_though_the_last_of_it_was() {
    everywhere(async |case| {
        append(&case.place, 1..=20).await;
        let builder = case.builder().concurrency(20);
        let builder = builder.configure(|settings| settings.drain_timeout = Duration::from_millis(300));
        let mut deliveries = builder.build().unwrap().into_stream();
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(deliveries.next().await.unwrap().unwrap());
        }
        held.sort_by_key(|delivery| delivery.id());
        held.pop().unwrap().settle();
        // A stop saves what can be saved.
        let report = deliveries.stop().await.unwrap();
        assert_eq!((report.settled, report.abandoned, report.unsaved), (1, 19, 0), "{}", case.name);
        assert_eq!(watermark(&case.place).await.unwrap_or_default(), 0, "{}", case.name);
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 20).await;
        running.stop().await;
        assert_eq!(calls.numbers(), to(19), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_an_entry_that_was_in_the_handler_when_the_process_died_comes_again() {
    everywhere(async |case| {
        append(&case.place, 1..=10).await;
        let (killed, calls) = (Calls::default(), Calls::default());
        let running = Running::start(case.builder(), killed.stuck_at([5]));
        until_watermark(&case.place, 4).await;
        running.abort();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 10).await;
        running.stop().await;
        assert_eq!(killed.numbers(), to(5), "{}", case.name);
        assert_eq!(calls.numbers(), (5..=10).collect::<Vec<_>>(), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_the_rest_of_a_batch_comes_to_the_same_name_after_a_failure_in_its_middle() {
    everywhere(async |case| {
        append(&case.place, 1..=10).await;
        let named = || case.builder().name(ConsumerName::new("worker-7").unwrap());
        let fails = |delivery: Delivery| {
            let failed = number(&delivery) == 3;
            async move { if failed { Err(HandlerError::reject("cannot be handled")) } else { Ok(()) } }
        };
        let stops = named().configure(|settings| settings.on_exhausted = OnExhausted::Stop);
        let error = stops.build().unwrap().run(fails, pending::<()>()).await.unwrap_err();
        assert_eq!((error.kind(), error.context("id")), (ErrorKind::Handler, Some("3-0")), "{}", case.name);
        let calls = Calls::default();
        let running = Running::start(named(), calls.stuck_at([]));
        until_watermark(&case.place, 10).await;
        running.stop().await;
        assert_eq!(calls.numbers(), (3..=10).collect::<Vec<_>>(), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_checkpoint_that_was_not_stored_is_sent_again_without_new_entries() {
    everywhere(async |case| {
        let (case, faults) = with_faulty_checkpoints(case);
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        append(&case.place, 1..=3).await;
        until_watermark(&case.place, 3).await;
        for fault in [Fault::Before, Fault::Before, Fault::After] {
            faults.next(Operation::Advance, fault);
        }
        let asked = faults.calls(Operation::Advance);
        append(&case.place, 4..=6).await;
        until_watermark(&case.place, 6).await;
        eventually("it knows so", LIMIT, async || faults.calls(Operation::Advance) >= asked + 4).await;
        let report = running.stop().await;
        assert_eq!((report.settled, report.unsaved), (6, 0), "{}", case.name);
        assert_eq!(calls.numbers(), to(6), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t30_what_is_handled_while_a_checkpoint_is_on_its_way_is_saved_by_the_next() {
    everywhere(async |case| {
        let (case, faults) = with_faulty_checkpoints(case);
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        append(&case.place, 1..=1).await;
        until_watermark(&case.place, 1).await;
        let late = Duration::from_millis(400);
        let asked = faults.calls(Operation::Advance);
        faults.next(Operation::Advance, Fault::Late(late));
        append(&case.place, 2..=2).await;
        eventually("it is on its way", LIMIT, async || faults.calls(Operation::Advance) > asked).await;
        append(&case.place, 3..=3).await;
        calls.until("the next one is handled meanwhile", 3).await;
        // Nothing else comes.
        until_watermark(&case.place, 3).await;
        let report = running.stop().await;
        assert_eq!((report.settled, report.unsaved), (3, 0), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_acks_in_reverse_move_the_watermark_once_and_to_the_end() {
    everywhere(async |case| {
        append(&case.place, 1..=4).await;
        let told = Told::default();
        let builder = case.builder().concurrency(4).observer(told.observer());
        let builder = builder.configure(|settings| settings.checkpoint = CheckpointPolicy::Entries(1));
        let mut deliveries = builder.build().unwrap().into_stream();
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(deliveries.next().await.unwrap().unwrap());
        }
        held.sort_by_key(|delivery| delivery.id());
        while held.len() > 1 {
            let saved = told.count("Advanced");
            held.pop().unwrap().settle();
            eventually("it is saved", LIMIT, async || told.count("Advanced") > saved).await;
            let before = watermark(&case.place).await.unwrap_or_default();
            assert_eq!(before, 0, "{} {:?}: the first is not handled", case.name, case.ownership);
        }
        held.pop().unwrap().settle();
        until_watermark(&case.place, 4).await;
        deliveries.stop().await.unwrap();
    })
    .await;
}

/// Waits until the checkpoint has this one as settled, wherever its watermark is.
async fn until_saved(case: &Case, n: u64) {
    eventually("it is saved", LIMIT, async || {
        let checkpoint = case.place.checkpoints.load(&case.place.subscription).await.unwrap();
        checkpoint.is_some_and(|checkpoint| checkpoint.position.settles(id(n)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_after_a_clean_restart_only_the_holes_come_again() {
    everywhere(async |case| {
        append(&case.place, 1..=1_000).await;
        let (first, second) = (Calls::default(), Calls::default());
        let builder = case.builder().concurrency(8);
        let builder = builder.configure(|settings| settings.drain_timeout = Duration::from_millis(300));
        let running = Running::start(builder, first.stuck_at([2, 4]));
        first.until("all are called", 1_000).await;
        until_saved(&case, 1_000).await;
        let report = running.stop().await;
        assert_eq!((report.settled, report.abandoned, report.unsaved), (998, 2, 0), "{}", case.name);
        let running = Running::start(case.builder(), second.stuck_at([]));
        until_watermark(&case.place, 1_000).await;
        running.stop().await;
        assert_eq!(second.numbers(), [2, 4], "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_holes_over_the_budget_come_again_with_more_and_never_with_less() {
    everywhere(async |case| {
        append(&case.place, 1..=400).await;
        let (first, second) = (Calls::default(), Calls::default());
        let holes: Vec<u64> = (1..=40).map(|n| n * 10).collect();
        let small = |settings: &mut highwater::Settings| {
            settings.drain_timeout = Duration::from_millis(300);
            settings.ahead_bytes_max = 80;
        };
        let builder = case.builder().concurrency(48).configure(small);
        let running = Running::start(builder, first.stuck_at(holes.clone()));
        first.until("all are called", 400).await;
        for_a_time(Duration::from_millis(500)).await;
        running.stop().await;
        let checkpoint = case.place.checkpoints.load(&case.place.subscription).await.unwrap().unwrap();
        let ahead = checkpoint.position.ahead.encode();
        assert!(ahead.len() <= 80, "{}: {ahead}", case.name);
        let running = Running::start(case.builder().configure(small), second.stuck_at([]));
        until_watermark(&case.place, 400).await;
        running.stop().await;
        let numbers = second.numbers();
        assert!(holes.iter().all(|hole| numbers.contains(hole)), "{}: {numbers:?}", case.name);
        let settled = |n: &u64| checkpoint.position.settles(id(*n));
        assert!(!numbers.iter().any(settled), "{}: what it has as settled came again", case.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t28_one_stuck_entry_stops_reading_at_the_window_and_lets_all_go_on_when_it_moves() {
    wherever(Ownership::Exclusive, async |case| {
        append(&case.place, 1..=500).await;
        let calls = Calls::default();
        let (open, handler) = gated(&calls, |n| n == 1);
        let builder = case.builder().concurrency(4).configure(|settings| {
            (settings.read_entries_max, settings.in_flight_entries_max) = (16, 32);
            settings.window_entries_max = 100;
        });
        let running = Running::start(builder, handler);
        eventually("reading stops", LIMIT, async || {
            let before = calls.numbers().len();
            for_a_time(Duration::from_millis(600)).await;
            before > 10 && before == calls.numbers().len()
        })
        .await;
        assert!(calls.numbers().len() <= 100, "{}: {}", case.name, calls.numbers().len());
        let checkpoint = case.place.checkpoints.load(&case.place.subscription).await.unwrap().unwrap();
        assert_eq!(checkpoint.position.watermark.ms, 0, "{}", case.name);
        assert!(checkpoint.encode().len() < 1_024, "{}", case.name);
        open.send_replace(true);
        until_watermark(&case.place, 500).await;
        running.stop().await;
        calls.assert_once(case.name, 1..=500);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_every_second_entry_stuck_stops_reading_and_all_are_saved_when_they_move() {
    wherever(Ownership::Exclusive, async |case| {
        append(&case.place, 1..=400).await;
        let calls = Calls::default();
        let (open, handler) = gated(&calls, |n| n % 2 == 0);
        let builder = case.builder().concurrency(200).configure(|settings| {
            (settings.read_entries_max, settings.in_flight_entries_max) = (10, 100);
            settings.window_entries_max = 120;
            settings.ahead_bytes_max = 100;
        });
        let running = Running::start(builder, handler);
        eventually("reading stops", LIMIT, async || {
            let before = calls.numbers().len();
            for_a_time(Duration::from_millis(600)).await;
            before > 10 && before == calls.numbers().len()
        })
        .await;
        assert!(calls.numbers().len() <= 120, "{}: {}", case.name, calls.numbers().len());
        let checkpoint = case.place.checkpoints.load(&case.place.subscription).await.unwrap().unwrap();
        let position = checkpoint.position;
        assert!(position.ahead.encode().len() <= 100, "{}: {position:?}", case.name);
        assert!(position.settles(id(1)) && !position.settles(id(2)), "{}: {position:?}", case.name);
        open.send_replace(true);
        until_watermark(&case.place, 400).await;
        running.stop().await;
        calls.assert_once(case.name, 1..=400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_who_has_nothing_new_writes_nothing() {
    everywhere(async |case| {
        let (case, faults) = with_faulty_checkpoints(case);
        append(&case.place, 1..=5).await;
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 5).await;
        // A shared one completes its checkpoint with the count when it has nothing else to do.
        for_a_time(Duration::from_millis(1_500)).await;
        let written = faults.calls(Operation::Advance);
        for_a_time(Duration::from_millis(1_500)).await;
        assert_eq!(faults.calls(Operation::Advance), written, "{} {:?}", case.name, case.ownership);
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_readers_side_by_side_keep_the_order() {
    wherever(Ownership::Shared, async |case| {
        append(&case.place, 1..=2_000).await;
        let calls = Calls::default();
        let builder = case.builder().configure(|settings| {
            (settings.read_entries_max, settings.readers) = (20, 4);
        });
        let running = Running::start(builder, calls.stuck_at([]));
        until_watermark(&case.place, 2_000).await;
        running.stop().await;
        assert_eq!(calls.numbers(), to(2_000), "{}", case.name);
    })
    .await;
}
