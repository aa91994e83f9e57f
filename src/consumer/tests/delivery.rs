//! G1, G2, G10, G17: what the handler sees, and in which order.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::StreamExt;

use super::*;
use crate::ErrorKind;

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

#[tokio::test(start_paused = true)]
async fn g1_a_failing_entry_is_retried_in_place_and_nothing_overtakes_it() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 20).await;
        let (recorder, stop) = Recorder::until(22);
        let handler = {
            let recorder = recorder.clone();
            move |delivery: Delivery| {
                recorder.record(&delivery);
                let fails = delivery.id().ms == 7 && delivery.attempt < 3;
                async move { if fails { Err("not yet") } else { Ok(()) } }
            }
        };
        let report = builder(&memory, ownership).build().unwrap().run(handler, stop).await.unwrap();
        let expected: Vec<_> = (1..=7).chain([7, 7]).chain(8..=20).collect();
        assert_eq!(recorder.seen(), expected, "{ownership:?}");
        assert_eq!((report.settled, report.retried), (20, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn g1_an_exhausted_entry_stops_the_consumer_and_is_not_settled() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 10).await;
        let handler =
            |delivery: Delivery| async move { if delivery.id().ms == 4 { Err("never") } else { Ok(()) } };
        let error = builder(&memory, ownership)
            .configure(|settings| settings.on_exhausted = OnExhausted::Stop)
            .build()
            .unwrap()
            .run(handler, std::future::pending::<()>())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handler);
        assert_eq!(error.context("id"), Some("4-0"));
        assert_eq!(error.context("attempts"), Some("5"));
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "never");
        let position = memory.load(&subscription()).await.unwrap().unwrap().position;
        assert!(
            position.settles(EntryId::new(3, 0)) && !position.settles(EntryId::new(4, 0)),
            "{position:?}"
        );
        let (recorder, stop) = Recorder::until(7);
        builder(&memory, ownership).build().unwrap().run(recorder.clone(), stop).await.unwrap();
        assert_eq!(recorder.seen(), [4, 5, 6, 7, 8, 9, 10], "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_panic_is_contained_and_a_reject_is_final() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 3).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let handler = move |delivery: Delivery| {
            let counted = Arc::clone(&counted);
            async move {
                match delivery.id().ms {
                    1 if delivery.attempt == 1 => panic!("boom"),
                    3 => {
                        counted.fetch_add(1, Ordering::Relaxed);
                        Err(HandlerError::reject("undecodable"))
                    }
                    _ => Ok(()),
                }
            }
        };
        let error = builder(&memory, ownership)
            .configure(|settings| settings.on_exhausted = OnExhausted::Stop)
            .build()
            .unwrap()
            .run(handler, std::future::pending::<()>())
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.context("id")), (ErrorKind::Handler, Some("3-0")));
        assert_eq!(calls.load(Ordering::Relaxed), 1, "a rejected entry is not tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn g17_one_stuck_entry_holds_nothing_but_the_window() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 5_000).await;
        let done = Arc::new(AtomicUsize::new(0));
        let release = Arc::new(tokio::sync::Notify::new());
        let handler = {
            let (done, release) = (Arc::clone(&done), Arc::clone(&release));
            move |delivery: Delivery| {
                let (done, release) = (Arc::clone(&done), Arc::clone(&release));
                async move {
                    if delivery.id().ms == 1 {
                        release.notified().await;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, HandlerError>(())
                }
            }
        };
        let consumer = builder(&memory, ownership)
            .concurrency(4)
            .configure(|settings| {
                settings.in_flight_entries_max = 64;
                settings.window_entries_max = 1_000;
            })
            .build()
            .unwrap();
        let (stop, stopped) = stopper();
        let run = tokio::spawn(consumer.run(handler, stopped));
        let all_but_one = 4_999;
        until("the others are handled, as far as the window goes", async || {
            let done = done.load(Ordering::Relaxed);
            if ownership == Ownership::Exclusive { done > 900 } else { done == all_but_one }
        })
        .await;
        Clock::new().sleep(Duration::from_secs(30)).await;
        let done = done.load(Ordering::Relaxed);
        assert!(ownership == Ownership::Shared || done < 1_000, "reading pauses at the window: {done}");
        assert!(watermark(&memory).await.unwrap() < EntryId::new(1, 0), "G2: not over the stuck entry");
        release.notify_one();
        until("all are settled", async || watermark(&memory).await.unwrap().ms == 5_000).await;
        stop.send(()).unwrap();
        assert_eq!(run.await.unwrap().unwrap().settled, 5_000);
    }
}

#[tokio::test(start_paused = true)]
async fn g10_keyed_order_holds_per_key_and_a_failing_key_holds_back_itself_only() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 300).await;
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        let handler = {
            let seen = Arc::clone(&seen);
            move |delivery: Delivery| {
                let seen = Arc::clone(&seen);
                async move {
                    let n = delivery.id().ms;
                    if n == 10 && delivery.attempt < 4 {
                        return Err(HandlerError::retry("key 0 is stuck"));
                    }
                    tokio::task::yield_now().await;
                    seen.lock().unwrap().push(n);
                    Ok(())
                }
            }
        };
        let (stop, stopped) = stopper();
        let consumer =
            builder(&memory, ownership).keyed(7, |delivery| delivery.id().ms % 10).build().unwrap();
        let run = tokio::spawn(consumer.run(handler, stopped));
        until("all are handled", async || seen.lock().unwrap().len() == 300).await;
        stop.send(()).unwrap();
        assert_eq!(run.await.unwrap().unwrap().retried, 3);
        let seen = seen.lock().unwrap().clone();
        let mut keys: HashMap<u64, Vec<u64>> = HashMap::new();
        for n in &seen {
            keys.entry(n % 10).or_default().push(*n);
        }
        assert!(keys.values().all(|key| key.is_sorted()), "{keys:?}");
        let stuck = seen.iter().position(|&n| n == 10).unwrap();
        assert!(stuck >= 270, "the other keys went on: {stuck}");
    }
}

#[tokio::test(start_paused = true)]
async fn batches_come_whole_and_in_order_again_until_they_succeed() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 95).await;
        let batches: Arc<Mutex<Vec<Vec<u64>>>> = Arc::default();
        let handler = {
            let batches = Arc::clone(&batches);
            move |batch: Vec<Delivery>| {
                let ids: Vec<_> = batch.iter().map(|d| d.id().ms).collect();
                let fails = ids.contains(&15) && batch[0].attempt == 1;
                batches.lock().unwrap().push(ids);
                async move { if fails { Err("again") } else { Ok(()) } }
            }
        };
        let (stop, stopped) = stopper();
        let consumer = builder(&memory, ownership).batch_entries_max(10).build().unwrap();
        let run = tokio::spawn(consumer.run_batches(handler, stopped));
        until("all are settled", async || watermark(&memory).await.is_some_and(|w| w.ms == 95)).await;
        stop.send(()).unwrap();
        assert_eq!(run.await.unwrap().unwrap().settled, 95);
        let batches = batches.lock().unwrap().clone();
        assert_eq!(batches[1], batches[2], "the failed batch came again as it was");
        assert!(batches.iter().all(|batch| batch.len() <= 10));
        let mut all: Vec<_> = batches.concat();
        all.dedup();
        all.drain(20..30);
        assert_eq!(all, to(95), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_settled_by_hand_and_what_is_dropped_comes_again() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 5).await;
        let mut deliveries = builder(&memory, ownership).build().unwrap().into_stream();
        let first = deliveries.next().await.unwrap().unwrap();
        assert_eq!((first.id().ms, first.attempt), (1, 1));
        drop(first);
        let again = deliveries.next().await.unwrap().unwrap();
        assert_eq!((again.id().ms, again.attempt), (1, 2), "dropped, so it comes again");
        again.settle();
        let second = deliveries.next().await.unwrap().unwrap();
        assert_eq!(second.id().ms, 2);
        second.settle();
        let third = deliveries.next().await.unwrap().unwrap();
        let report = {
            let stopping = tokio::spawn(deliveries.stop());
            third.settle();
            stopping.await.unwrap().unwrap()
        };
        assert_eq!(report.settled, 3);
        assert_eq!(watermark(&memory).await.unwrap().ms, 3, "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_concurrency_keeps_the_order_of_first_deliveries() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 50).await;
        let deliveries = builder(&memory, ownership).concurrency(8).build().unwrap().into_stream();
        let ids: Vec<_> = deliveries
            .take(50)
            .map(|delivery| {
                let delivery = delivery.unwrap();
                let id = delivery.id().ms;
                delivery.settle();
                id
            })
            .collect()
            .await;
        assert_eq!(ids, to(50));
    }
}

#[tokio::test(start_paused = true)]
async fn g2_acks_3_2_1_0_move_the_watermark_once() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 4).await;
        let mut deliveries = builder(&memory, ownership).concurrency(4).build().unwrap().into_stream();
        let mut held = Vec::new();
        while held.len() < 4 {
            held.push(deliveries.next().await.unwrap().unwrap());
        }
        while held.len() > 1 {
            held.pop().unwrap().settle();
            Clock::new().sleep(Duration::from_secs(1)).await;
            assert!(watermark(&memory).await.unwrap() < EntryId::new(1, 0));
        }
        held.pop().unwrap().settle();
        until("the watermark is at 4", async || watermark(&memory).await.unwrap().ms == 4).await;
        deliveries.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn every_policy_saves_all_in_the_end() {
    for policy in [
        CheckpointPolicy::Coalesced,
        CheckpointPolicy::EveryAck,
        CheckpointPolicy::Entries(7),
        CheckpointPolicy::Bytes(5),
        CheckpointPolicy::Interval(Duration::from_millis(200)),
    ] {
        for ownership in both() {
            let memory = Memory::new();
            append(&memory, 40).await;
            let advances = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&advances);
            let (stop, stopped) = stopper();
            let consumer = builder(&memory, ownership)
                .configure(|settings| settings.checkpoint = policy)
                .observer(move |_: &Subscription, observation: &Observation<'_>| {
                    if let Observation::Advanced { .. } = observation {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .build()
                .unwrap();
            let handler = |_: Delivery| async { Ok::<_, HandlerError>(()) };
            let run = tokio::spawn(consumer.run(handler, stopped));
            until("all are saved", async || watermark(&memory).await.is_some_and(|w| w.ms == 40)).await;
            stop.send(()).unwrap();
            let report = run.await.unwrap().unwrap();
            assert_eq!((report.settled, report.unsaved, report.abandoned), (40, 0, 0));
            if policy == CheckpointPolicy::EveryAck {
                assert!(advances.load(Ordering::Relaxed) >= 40, "{ownership:?}: each entry has its own");
            }
        }
    }
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn typed_payloads_are_decoded_and_what_cannot_be_is_rejected() {
    use crate::codec::{self, Json};

    let memory = Memory::new();
    let value = |n: u64| NewEntry::new(codec::encode::<u64, Json>(&n).unwrap());
    let garbage = NewEntry::new(Fields::from_iter([(codec::PAYLOAD_FIELD, "{")]));
    let entries = vec![value(7), value(8), garbage];
    memory.append(&Append::new(subscription().stream, entries)).await.unwrap();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let values = Arc::clone(&seen);
    let handler = typed::<Json, _, _, _, _>(move |value: u64, _: Delivery| {
        values.lock().unwrap().push(value);
        async { Ok::<_, HandlerError>(()) }
    });
    let consumer = builder(&memory, Ownership::Shared)
        .configure(|settings| settings.on_exhausted = OnExhausted::Stop)
        .build()
        .unwrap();
    let error = consumer.run(handler, std::future::pending::<()>()).await.unwrap_err();
    assert_eq!((error.kind(), error.context("attempts")), (ErrorKind::Handler, Some("1")));
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<crate::Error>().unwrap();
    assert!(codec::is_undecodable(source), "{source:?}");
    assert_eq!(*seen.lock().unwrap(), [7, 8]);
}
