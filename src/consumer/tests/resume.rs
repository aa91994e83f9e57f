//! G5 to G8: where a subscription goes on, whatever happened to its group or its stream.

use futures_util::StreamExt;

use super::*;
use crate::{ErrorKind, integrity::Lost};

fn stream() -> StreamName {
    subscription().stream
}

/// Settles the first `count` entries in a run of its own.
async fn settle(memory: &Memory, ownership: Ownership, count: usize) {
    let deliveries = builder(memory, ownership).build().unwrap().into_stream();
    let mut deliveries = deliveries;
    for _ in 0..count {
        deliveries.next().await.unwrap().unwrap().settle();
    }
    until("they are saved", async || watermark(memory).await.is_some_and(|w| w.ms == count as u64)).await;
    deliveries.stop().await.unwrap();
}

async fn rest(memory: &Memory, ownership: Ownership, count: usize) -> Vec<u64> {
    let (recorder, stop) = Recorder::until(count);
    builder(memory, ownership).build().unwrap().run(recorder.clone(), stop).await.unwrap();
    recorder.seen()
}

async fn refused(memory: &Memory, ownership: Ownership) -> crate::Error {
    let (recorder, _stop) = Recorder::until(1);
    builder(memory, ownership).build().unwrap().run(recorder, std::future::pending::<()>()).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn g6_a_lost_group_is_created_at_the_checkpoint() {
    let memory = Memory::new();
    append(&memory, 100).await;
    settle(&memory, Ownership::Shared, 50).await;
    assert_eq!(memory.remove(&Removal::Group(subscription())).await.unwrap(), 1);
    assert_eq!(rest(&memory, Ownership::Shared, 50).await, (51..=100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn g6_a_group_that_goes_while_it_is_read_is_created_at_the_checkpoint() {
    let memory = Memory::new();
    append(&memory, 50).await;
    let (recorder, stop) = Recorder::until(100);
    let run = tokio::spawn(builder(&memory, Ownership::Shared).build().unwrap().run(recorder.clone(), stop));
    until("50 are settled", async || watermark(&memory).await.is_some_and(|w| w.ms == 50)).await;
    memory.remove(&Removal::Group(subscription())).await.unwrap();
    append(&memory, 50).await;
    run.await.unwrap().unwrap();
    assert_eq!(recorder.seen(), to(100));
}

#[tokio::test(start_paused = true)]
async fn g14_what_a_read_that_was_dropped_takes_long_after_is_handled() {
    let memory = Memory::new();
    append(&memory, 5).await;
    let (recorder, stop) = Recorder::until(25);
    let consumer = builder(&memory, Ownership::Shared).build().unwrap();
    let late = ReadGroup::new(subscription(), consumer.name().clone(), 10);
    let run = tokio::spawn(consumer.run(recorder.clone(), stop));
    until("it waits for more", async || watermark(&memory).await.is_some_and(|w| w.ms == 5)).await;
    append(&memory, 10).await;
    // Nobody else gets a turn in between: it is what the network has kept.
    assert_eq!(memory.read_group(&late).await.unwrap().len(), 10);
    append(&memory, 10).await;
    run.await.unwrap().unwrap();
    let mut seen = recorder.seen();
    seen.sort_unstable();
    assert_eq!(seen, to(25));
}

#[tokio::test(start_paused = true)]
async fn g7_what_is_lost_from_a_stream_that_was_not_there_at_first_is_told() {
    for ownership in both() {
        let memory = Memory::new();
        let (recorder, _stop) = Recorder::until(1);
        let (stop, stopped) = stopper();
        let run = tokio::spawn(builder(&memory, ownership).build().unwrap().run(recorder, stopped));
        until("it has begun", async || watermark(&memory).await.is_some()).await;
        drop(stop);
        run.await.unwrap().unwrap();
        append(&memory, 5).await;
        memory.trim(&Trim::new(stream(), TrimLimit::Len(2))).await.unwrap();
        let error = refused(&memory, ownership).await;
        assert_eq!(error.kind(), ErrorKind::Gap, "{ownership:?}: {error:?}");
        assert_eq!(error.context("lost"), Some("3"));
    }
}

#[tokio::test(start_paused = true)]
async fn g5_with_holes_only_the_holes_come_back() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 100).await;
        let mut deliveries = builder(&memory, ownership).concurrency(100).build().unwrap().into_stream();
        let mut held = Vec::new();
        for _ in 0..100 {
            let delivery = deliveries.next().await.unwrap().unwrap();
            if [2, 4, 50].contains(&delivery.id().ms) { held.push(delivery) } else { delivery.settle() }
        }
        let top = EntryId::new(100, 0);
        until("the rest is saved", async || {
            memory.load(&subscription()).await.unwrap().is_some_and(|c| c.position.settles(top))
        })
        .await;
        drop(deliveries);
        drop(held);
        if ownership == Ownership::Shared {
            // Without its group, the checkpoint alone knows what was settled.
            memory.remove(&Removal::Group(subscription())).await.unwrap();
        }
        assert_eq!(rest(&memory, ownership, 3).await, [2, 4, 50], "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_entries_trimmed_while_nobody_read_are_a_gap() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 100).await;
        settle(&memory, ownership, 50).await;
        assert_eq!(memory.trim(&Trim::new(stream(), TrimLimit::Len(30))).await.unwrap(), 70);
        let error = refused(&memory, ownership).await;
        assert_eq!(error.kind(), ErrorKind::Gap);
        let Some(crate::integrity::Finding::Gap(gap)) = error.finding() else { panic!("{error:?}") };
        // What a dead consumer of the group still had pending is listed up to a limit.
        let lost = if ownership == Ownership::Shared { Lost::AtLeast(20) } else { Lost::Exactly(20) };
        assert_eq!((gap.lost, gap.before), (lost, Some(EntryId::new(71, 0))), "{ownership:?}");
        assert_eq!(watermark(&memory).await.unwrap().ms, 50, "nothing was changed");
        let (recorder, stop) = Recorder::until(30);
        let consumer =
            builder(&memory, ownership).configure(|settings| settings.on_gap = OnGap::Skip).build().unwrap();
        let report = consumer.run(recorder.clone(), stop).await.unwrap();
        assert_eq!(recorder.seen(), (71..=100).collect::<Vec<_>>());
        assert_eq!(report.gaps, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn g7_trimming_up_to_the_watermark_is_no_gap() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 100).await;
        settle(&memory, ownership, 50).await;
        memory.trim(&Trim::new(stream(), TrimLimit::Len(50))).await.unwrap();
        assert_eq!(rest(&memory, ownership, 50).await, (51..=100).collect::<Vec<_>>(), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_gap_shows_while_it_runs() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 100).await;
        let mut deliveries = builder(&memory, ownership)
            .configure(|settings| {
                settings.in_flight_entries_max = 10;
                settings.read_entries_max = 10;
            })
            .build()
            .unwrap()
            .into_stream();
        for _ in 0..5 {
            deliveries.next().await.unwrap().unwrap().settle();
        }
        memory.trim(&Trim::new(stream(), TrimLimit::Len(20))).await.unwrap();
        // What was read before the trimming still comes; then the gap.
        let mut last = None;
        let clock = Clock::started();
        let error = loop {
            assert!(clock.elapsed() < Duration::from_secs(1_000), "{ownership:?}: no gap, up to {last:?}");
            match deliveries.next().await.unwrap() {
                Ok(delivery) => {
                    last = Some(delivery.id().ms);
                    delivery.settle();
                    clock.sleep(Duration::from_secs(2)).await;
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Gap, "{ownership:?}: {error}");
        assert!(last.is_none_or(|last| last <= 20), "nothing behind the gap came: {last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_pending_entries_that_were_deleted_never_reach_a_handler() {
    let memory = Memory::new();
    append(&memory, 10).await;
    // A consumer that dies with all ten pending.
    let mut deliveries = builder(&memory, Ownership::Shared).build().unwrap().into_stream();
    let held = deliveries.next().await.unwrap().unwrap();
    drop((deliveries, held));
    memory.remove(&Removal::Entries(stream(), vec![EntryId::new(3, 0), EntryId::new(7, 0)])).await.unwrap();
    let error = refused(&memory, Ownership::Shared).await;
    assert_eq!(error.kind(), ErrorKind::Gap, "{error}");
    let (recorder, stop) = Recorder::until(8);
    let consumer = builder(&memory, Ownership::Shared).configure(|s| s.on_gap = OnGap::Skip).build().unwrap();
    consumer.run(recorder.clone(), stop).await.unwrap();
    let mut seen = recorder.seen();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 4, 5, 6, 8, 9, 10]);
    let state = memory.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap();
    assert_eq!(state.group.unwrap().pending, 0, "the deleted ones left the pending list");
}

#[tokio::test(start_paused = true)]
async fn g8_a_stream_created_anew_is_refused_or_follows_the_policy() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 100).await;
        settle(&memory, ownership, 50).await;
        memory.remove(&Removal::Stream(stream())).await.unwrap();
        assert_eq!(refused(&memory, ownership).await.kind(), ErrorKind::Reset, "no stream");
        append(&memory, 5).await;
        let error = refused(&memory, ownership).await;
        assert_eq!(error.kind(), ErrorKind::Reset, "another stream");
        assert_eq!(watermark(&memory).await.unwrap().ms, 50, "nothing was changed");
        let (recorder, stop) = Recorder::until(5);
        let consumer =
            builder(&memory, ownership).configure(|s| s.on_reset = OnReset::FromBeginning).build().unwrap();
        consumer.run(recorder.clone(), stop).await.unwrap();
        assert_eq!(recorder.seen(), to(5), "{ownership:?}");
        assert_eq!(watermark(&memory).await.unwrap().ms, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_stream_that_is_deleted_while_it_is_read_is_noticed() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 5).await;
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let run = tokio::spawn(
            builder(&memory, ownership).build().unwrap().run(recorder.clone(), std::future::pending::<()>()),
        );
        until("all are settled", async || watermark(&memory).await.is_some_and(|w| w.ms == 5)).await;
        memory.remove(&Removal::Stream(stream())).await.unwrap();
        append(&memory, 3).await;
        let error = run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Reset, "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_starts_at_the_beginning_unless_told_otherwise() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 10).await;
        let (stop, stopped) = stopper();
        let (recorder, _unused) = Recorder::until(usize::MAX);
        let consumer = builder(&memory, ownership).configure(|s| s.start = StartAt::End).build().unwrap();
        let run = tokio::spawn(consumer.run(recorder.clone(), stopped));
        until("it has begun", async || watermark(&memory).await.is_some()).await;
        assert_eq!(watermark(&memory).await.unwrap().ms, 10, "{ownership:?}: where it began is durable");
        append(&memory, 2).await;
        until("it reads on", async || recorder.seen() == [11, 12]).await;
        stop.send(()).unwrap();
        run.await.unwrap().unwrap();
    }
}
