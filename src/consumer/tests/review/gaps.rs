use futures_util::StreamExt;

use super::*;
use crate::{ConsumerName, Epoch, ErrorKind, Position, backend::Settlement, integrity::Finding};

#[tokio::test(start_paused = true)]
async fn g7_a_gap_behind_what_is_settled_shows_before_a_read_jumps_over_it() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 10).await;
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (begun, release) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let handler = {
            let (seen, begun, release) = (Arc::clone(&seen), Arc::clone(&begun), Arc::clone(&release));
            move |batch: Vec<Delivery>| {
                let (seen, begun, release) = (Arc::clone(&seen), Arc::clone(&begun), Arc::clone(&release));
                async move {
                    if batch[0].id().ms == 1 {
                        begun.notify_one();
                        release.notified().await;
                    }
                    seen.lock().unwrap().extend(batch.iter().map(|delivery| delivery.id().ms));
                    Ok::<_, HandlerError>(())
                }
            }
        };
        let consumer = builder(&memory, ownership)
            .batch_entries_max(10)
            .configure(|settings| {
                settings.in_flight_entries_max = 10;
                settings.read_entries_max = 10;
            })
            .build()
            .unwrap();
        let run = tokio::spawn(consumer.run_batches(handler, std::future::pending::<()>()));
        begun.notified().await;
        Clock::new().sleep(Duration::from_secs(2)).await;
        append(&memory, 90).await;
        memory.trim(&Trim::new(stream(), TrimLimit::Len(20))).await.unwrap();
        release.notify_one();
        let ended = soon(async || run.is_finished()).await;
        assert!(ended, "{ownership:?}: 11 to 80 were lost in silence: {:?}", seen.lock().unwrap());
        assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::Gap, "{ownership:?}");
        assert_eq!(*seen.lock().unwrap(), to(10), "{ownership:?}: nothing behind the gap came");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_trimming_up_to_the_watermark_of_a_killed_consumer_is_no_gap() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 51).await;
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let handler = {
            let recorder = recorder.clone();
            move |delivery: Delivery| {
                recorder.record(&delivery);
                let stuck = delivery.id().ms > 50;
                async move {
                    if stuck {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, HandlerError>(())
                }
            }
        };
        let run = tokio::spawn(
            builder(&memory, ownership).build().unwrap().run(handler, std::future::pending::<()>()),
        );
        assert!(soon(async || watermark(&memory).await >= Some(id(50))).await, "{ownership:?}");
        run.abort();
        let _ = run.await;
        memory.trim(&Trim::new(stream(), TrimLimit::Below(id(51)))).await.unwrap();
        let (recorder, stop) = Recorder::until(1);
        let report = builder(&memory, ownership).build().unwrap().run(recorder.clone(), stop).await;
        let report = report.unwrap_or_else(|error| panic!("{ownership:?}: nothing is missing: {error}"));
        assert_eq!((recorder.seen(), report.gaps), (vec![51], 0), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_entries_lost_before_the_first_was_settled_are_a_gap() {
    for ownership in both() {
        let memory = Memory::new();
        // The subscription exists: its checkpoint is at the beginning.
        memory.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
        let (stop, stopped) = stopper();
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let run = tokio::spawn(builder(&memory, ownership).build().unwrap().run(recorder.clone(), stopped));
        until("it has begun", async || watermark(&memory).await.is_some()).await;
        stop.send(()).unwrap();
        run.await.unwrap().unwrap();
        append(&memory, 100).await;
        memory.trim(&Trim::new(stream(), TrimLimit::Len(50))).await.unwrap();
        let (recorder, stop) = Recorder::until(50);
        let ended = builder(&memory, ownership).build().unwrap().run(recorder.clone(), stop).await;
        assert_eq!(ended.err().map(|error| error.kind()), Some(ErrorKind::Gap), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_skipped_gap_forgets_nothing_of_what_is_settled_ahead() {
    let memory = Memory::new();
    append(&memory, 100).await;
    let mut deliveries =
        builder(&memory, Ownership::Exclusive).concurrency(100).build().unwrap().into_stream();
    let mut held = Vec::new();
    for _ in 0..100 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        if [50, 90].contains(&delivery.id().ms) { held.push(delivery) } else { delivery.settle() }
    }
    assert!(
        soon(async || memory.load(&subscription()).await.unwrap().unwrap().position.settles(id(100))).await
    );
    drop((deliveries, held));
    memory.trim(&Trim::new(stream(), TrimLimit::Below(id(60)))).await.unwrap();
    append(&memory, 1).await;
    let (recorder, stop) = Recorder::until(2);
    let consumer =
        builder(&memory, Ownership::Exclusive).configure(|s| s.on_gap = OnGap::Skip).build().unwrap();
    consumer.run(recorder.clone(), stop).await.unwrap();
    assert_eq!(recorder.seen(), [90, 101]);
}

#[tokio::test(start_paused = true)]
async fn g7_a_gap_that_was_skipped_is_not_met_again() {
    let memory = Memory::new();
    append(&memory, 3).await;
    let run = async |until_id: u64| {
        let (stop, stopped) = stopper();
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let consumer =
            builder(&memory, Ownership::Exclusive).configure(|s| s.on_gap = OnGap::Skip).build().unwrap();
        let running = tokio::spawn(consumer.run(recorder, stopped));
        until("all are settled", async || watermark(&memory).await == Some(id(until_id))).await;
        Clock::new().sleep(Duration::from_secs(5)).await;
        stop.send(()).unwrap();
        running.await.unwrap().unwrap().gaps
    };
    assert_eq!(run(3).await, 0);
    append(&memory, 7).await;
    memory.remove(&Removal::Entries(stream(), vec![id(5), id(6)])).await.unwrap();
    assert_eq!(run(10).await, 1);
    assert_eq!(run(10).await, 0, "it was skipped before");
}

#[tokio::test(start_paused = true)]
async fn g8_from_the_beginning_means_so_where_the_group_survived() {
    // The stream lost its tail in a failover, with its group; the checkpoint is elsewhere.
    let (memory, store) = (Memory::new(), Memory::new());
    append(&memory, 10).await;
    memory.ensure_group(&EnsureGroup::new(subscription(), &Position::at(id(10)))).await.unwrap();
    let advance = Advance::new(
        subscription(),
        crate::Epoch(0),
        Position::at(id(20)),
        crate::ConsumerName::new("before").unwrap(),
    );
    store.advance(&advance).await.unwrap();
    let consumer = Consumer::builder(subscription(), memory.clone(), store.clone())
        .configure(|settings| settings.on_reset = OnReset::FromBeginning);
    let (recorder, stop) = Recorder::until(10);
    consumer.build().unwrap().run(recorder.clone(), stop).await.unwrap();
    assert_eq!(recorder.seen(), to(10));
}

/// Found by the model: what was pending counted as settled, because the group had been moved over the gap behind it.
#[tokio::test(start_paused = true)]
async fn g7_pending_entries_that_go_with_new_ones_behind_them_are_told_as_well() {
    let (memory, faults) = (Memory::new(), Faults::new());
    append(&memory, 8).await;
    let lost: Arc<Mutex<u64>> = Arc::default();
    let sum = Arc::clone(&lost);
    let mut deliveries = faulty(&memory, &faults, Ownership::Shared)
        .configure(|settings| {
            settings.on_gap = OnGap::Skip;
            (settings.in_flight_entries_max, settings.read_entries_max) = (8, 8);
        })
        .observer(move |_: &Subscription, observation: &Observation<'_>| {
            if let Observation::Gap(gap) = observation {
                *sum.lock().unwrap() += gap.lost.count();
            }
        })
        .build()
        .unwrap()
        .into_stream();
    let first = deliveries.next().await.unwrap().unwrap();
    until("all are pending", async || pending(&memory).await == Some(8)).await;
    append(&memory, 6).await;
    // Its heartbeat runs out, so what it has not started may be another's by now, and is read again.
    faults.all(Fault::Before);
    Clock::new().sleep(Duration::from_secs(10)).await;
    memory.trim(&Trim::new(stream(), TrimLimit::Len(2))).await.unwrap();
    faults.clear();
    until("what was not delivered is told", async || *lost.lock().unwrap() >= 4).await;
    first.settle();
    let next = deliveries.next().await.unwrap().unwrap();
    assert_eq!((next.id(), *lost.lock().unwrap()), (id(13), 7 + 4), "2 to 8 were pending, 9 to 12 were not");
    next.settle();
    deliveries.stop().await.unwrap();
}

/// Entries that a consumer which was killed has pending, and what it has settled in transactions without an ack.
async fn left_behind(entries: u64, settled: Vec<EntryId>) -> (Memory, Memory) {
    let (memory, store) = (Memory::new(), Memory::new());
    append(&memory, entries).await;
    memory.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    let before = ConsumerName::new("before").unwrap();
    memory.read_group(&ReadGroup::new(subscription(), before.clone(), entries as usize)).await.unwrap();
    let advance = Advance::new(subscription(), Epoch(0), Position::default(), before.clone());
    store.advance(&advance).await.unwrap();
    let each = Settlement::each(subscription(), Epoch(0), before, settled);
    store.commit(store.begin().await.unwrap(), &each).await.unwrap();
    (memory, store)
}

/// Found by the model: a transaction had settled it, the group was lost before the ack, and the entry left the stream.
#[tokio::test(start_paused = true)]
async fn g7_what_a_transaction_has_settled_is_not_missing_though_it_is_pending() {
    // By the name under which it is pending, and by another one that claims it.
    for name in ["before", "after"] {
        for (settled, missing) in [(vec![id(1), id(2)], 0), (vec![id(1)], 1), (vec![id(2)], 1)] {
            let case = format!("{name}, settled {settled:?}");
            let (memory, store) = left_behind(4, settled).await;
            memory.trim(&Trim::new(stream(), TrimLimit::Below(id(3)))).await.unwrap();

            let lost: Arc<Mutex<u64>> = Arc::default();
            let sum = Arc::clone(&lost);
            let consumer = Consumer::builder(subscription(), memory.clone(), store.clone())
                .name(ConsumerName::new(name).unwrap())
                .configure(|settings| settings.on_gap = OnGap::Skip)
                .observer(move |_: &Subscription, observation: &Observation<'_>| {
                    if let Observation::Gap(gap) = observation {
                        *sum.lock().unwrap() += gap.lost.count();
                    }
                })
                .build()
                .unwrap();
            let running = tokio::spawn(consumer.run_transactional(
                |_, _| Box::pin(async { Ok::<_, HandlerError>(()) }),
                std::future::pending::<()>(),
            ));
            until(&case, async || watermark(&store).await == Some(id(4))).await;
            running.abort();
            assert_eq!(*lost.lock().unwrap(), missing, "{case}");
        }
    }
}

/// Found by the model: what was settled speaks for none of those behind it.
#[tokio::test(start_paused = true)]
async fn g7_a_gap_that_ends_a_consumer_goes_up_to_what_is_left() {
    let (memory, store) = left_behind(9, vec![id(1)]).await;
    memory.trim(&Trim::new(stream(), TrimLimit::Below(id(8)))).await.unwrap();
    let consumer = Consumer::builder(subscription(), memory, store)
        .configure(|settings| (settings.read_entries_max, settings.in_flight_entries_max) = (2, 2))
        .build()
        .unwrap();
    let ended = consumer.run_transactional(
        |_, _| Box::pin(async { Ok::<_, HandlerError>(()) }),
        std::future::pending::<()>(),
    );
    let finding = ended.await.unwrap_err().finding().copied();
    let Some(Finding::Gap(gap)) = finding else { panic!("{finding:?}") };
    assert_eq!((gap.after, gap.before), (id(2).prev().unwrap(), Some(id(8))));
}
