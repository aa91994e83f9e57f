//! G11: what is given up goes to the dead letters, and nothing else does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::{
    Attempts, ConsumerName, DeathReason, Epoch, ErrorKind, Letter, dead_letter_stream,
    layer::{Fault, Faults, Layer, Operation},
};

pub(super) async fn letters(memory: &Memory) -> Vec<Letter> {
    let stream = dead_letter_stream(&subscription()).unwrap();
    let entries = memory.entries_after(&stream, EntryId::ZERO, 1_000).await.unwrap();
    entries.iter().map(|entry| Letter::from_entry(entry).unwrap()).collect()
}

pub(super) async fn remembered(memory: &Memory) -> Vec<Attempts> {
    memory.attempts(&LoadAttempts::all(subscription())).await.unwrap()
}

/// Runs until the checkpoint stands at `id`.
pub(super) async fn run_to<B: AtomicSettle>(
    memory: &Memory,
    builder: Builder<Arc<B>, Arc<B>>,
    handler: impl Handler,
    id: u64,
) -> Report {
    let (stop, stopped) = stopper();
    let consumer = tokio::spawn(builder.build().unwrap().run(handler, stopped));
    until("it is settled", async || watermark(memory).await == Some(EntryId::new(id, 0))).await;
    stop.send(()).unwrap();
    consumer.await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn g11_every_kind_of_failure_is_dead_lettered_once_and_the_rest_is_handled() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 8).await;
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let seen = recorder.clone();
        let handler = move |delivery: Delivery| {
            recorder.record(&delivery);
            async move {
                match delivery.id().ms {
                    2 => Err(HandlerError::reject("no such customer")),
                    4 => Err(HandlerError::retry("never")),
                    5 => panic!("boom"),
                    6 => std::future::pending().await,
                    7 => Err(HandlerError::reject(
                        crate::codec::decode::<bytes::Bytes, crate::codec::Raw>(delivery.fields())
                            .unwrap_err(),
                    )),
                    _ => Ok(()),
                }
            }
        };
        let builder = builder(&memory, ownership)
            .configure(|settings| settings.handler_timeout = Some(Duration::from_secs(1)));
        let report = run_to(&memory, builder, handler, 8).await;
        assert_eq!((report.settled, report.dead_lettered), (3, 5), "{ownership:?} {report:?}");
        let letters = letters(&memory).await;
        let told: Vec<_> = letters.iter().map(|l| (l.id.ms, l.reason, l.attempts)).collect();
        let expected = [
            (2, DeathReason::Rejected, 1),
            (4, DeathReason::Exhausted, 5),
            (5, DeathReason::Panicked, 5),
            (6, DeathReason::TimedOut, 5),
            (7, DeathReason::Undecodable, 1),
        ];
        assert_eq!(told, expected, "{ownership:?}");
        assert_eq!(letters[0].error, "no such customer");
        assert_eq!(letters[1].fields, Fields::from_iter([("n", "4")]));
        assert!(letters[1].first_at < letters[1].last_at, "it took a while");
        let mut order = seen.seen();
        order.dedup();
        assert_eq!(order, to(8), "strict: what is behind waits");
        assert_eq!(remembered(&memory).await, [], "nothing is left to remember");
    }
}

#[tokio::test(start_paused = true)]
async fn g11_without_room_for_the_letter_nothing_is_acked_and_it_goes_on_when_there_is() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 3).await;
        let faults = Faults::new();
        faults.always(Operation::DeadLetter, Fault::Before);
        let handler = |delivery: Delivery| async move {
            if delivery.id().ms == 2 { Err(HandlerError::reject("no")) } else { Ok(()) }
        };
        let backend = faults.clone().wrap(memory.clone());
        let consumer = Consumer::fused(subscription(), backend).configure(|s| s.ownership = ownership);
        let (stop, stopped) = stopper();
        let running = tokio::spawn(consumer.build().unwrap().run(handler, stopped));
        // Shared: right below the entry that is pending.
        let behind = match ownership {
            Ownership::Shared => EntryId::new(1, u64::MAX),
            Ownership::Exclusive => EntryId::new(1, 0),
        };
        until("it was tried", async || faults.calls(Operation::DeadLetter) > 3).await;
        assert_eq!(watermark(&memory).await, Some(behind), "{ownership:?}");
        assert_eq!(letters(&memory).await, []);
        // A reply that is lost must not make two letters.
        faults.clear();
        faults.next(Operation::DeadLetter, Fault::After);
        until("it went on", async || watermark(&memory).await == Some(EntryId::new(3, 0))).await;
        stop.send(()).unwrap();
        let report = running.await.unwrap().unwrap();
        assert_eq!((letters(&memory).await.len(), report.dead_lettered), (1, 1), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g11_failures_are_counted_across_processes_and_a_shutdown_is_none() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 1).await;
        let calls = Arc::new(AtomicUsize::new(0));
        for deploy in 0..10 {
            let counted = Arc::clone(&calls);
            let (stop, stopped) = stopper();
            let stop = Arc::new(Mutex::new(Some(stop)));
            // Each process fails once, and is stopped in its second attempt.
            let handler = move |delivery: Delivery| {
                let nth = counted.fetch_add(1, Ordering::Relaxed);
                let stop = Arc::clone(&stop);
                async move {
                    if nth.is_multiple_of(2) && deploy < 2 {
                        return Err(HandlerError::retry(format!("attempt {}", delivery.attempt)));
                    }
                    stop.lock().unwrap().take().map(|stop| stop.send(()));
                    std::future::pending().await
                }
            };
            let builder = builder(&memory, ownership)
                .configure(|settings| settings.drain_timeout = Duration::from_millis(50));
            builder.build().unwrap().run(handler, stopped).await.unwrap();
        }
        let known = remembered(&memory).await;
        assert_eq!((known[0].failures, known[0].crashes), (2, 0), "{ownership:?} {known:?}");
        assert_eq!(letters(&memory).await, []);
        let handler = |_: Delivery| async { Err::<(), _>("never") };
        let report = run_to(&memory, builder(&memory, ownership), handler, 1).await;
        assert_eq!(report.retried, 2, "{ownership:?}: the third and the fourth of five failures");
        assert_eq!(letters(&memory).await[0].attempts, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn g11_an_entry_that_processes_die_of_is_dead_lettered_alone() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 100).await;
        let mut deaths = 0;
        loop {
            let (death, died) = stopper();
            let death = Arc::new(Mutex::new(Some(death)));
            let handler = move |delivery: Delivery| {
                let death = Arc::clone(&death);
                async move {
                    if delivery.id().ms == 50 {
                        death.lock().unwrap().take().map(|death| death.send(()));
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, HandlerError>(())
                }
            };
            let builder = builder(&memory, ownership)
                .configure(|s| (s.crashes_max, s.claim_min_idle) = (3, Duration::from_secs(3)));
            let mut running =
                tokio::spawn(builder.build().unwrap().run(handler, std::future::pending::<()>()));
            let done =
                until("it is settled", async || watermark(&memory).await == Some(EntryId::new(100, 0)));
            tokio::select! {
                () = died => {
                    // Nothing of it is left, as of a process that was killed.
                    running.abort();
                    let _ = (&mut running).await;
                    deaths += 1;
                    assert!(deaths < 10, "a crash loop: {ownership:?}");
                }
                () = done => {
                    running.abort();
                    break;
                }
            }
            Clock::new().sleep(Duration::from_secs(10)).await;
        }
        let letters = letters(&memory).await;
        let told: Vec<_> = letters.iter().map(|l| (l.id.ms, l.reason, l.crashes)).collect();
        assert_eq!(told, [(50, DeathReason::CrashLoop, 3)], "{ownership:?} after {deaths} deaths");
        assert!((4..=5).contains(&deaths), "{ownership:?}: {deaths}");
    }
}

#[tokio::test(start_paused = true)]
async fn g11_of_a_batch_only_the_entry_at_fault_is_dead_lettered() {
    for (ownership, named) in both().into_iter().flat_map(|ownership| [(ownership, true), (ownership, false)])
    {
        let memory = Memory::new();
        append(&memory, 100).await;
        let handled = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&handled);
        let handler = move |batch: Vec<Delivery>| {
            let seen = Arc::clone(&seen);
            async move {
                let bad = batch.iter().position(|delivery| delivery.id().ms == 37);
                let good = bad.unwrap_or(batch.len());
                match bad {
                    Some(index) if named => {
                        seen.lock().unwrap().extend(batch[..good].iter().map(|d| d.id().ms));
                        Err(HandlerError::retry("bad").at(index))
                    }
                    Some(_) => Err(HandlerError::retry("bad")),
                    None => {
                        seen.lock().unwrap().extend(batch.iter().map(|d| d.id().ms));
                        Ok(())
                    }
                }
            }
        };
        let (stop, stopped) = stopper();
        let consumer = builder(&memory, ownership).build().unwrap();
        let running = tokio::spawn(consumer.run_batches(handler, stopped));
        until("it is settled", async || watermark(&memory).await == Some(EntryId::new(100, 0))).await;
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
        let letters = letters(&memory).await;
        assert_eq!(letters.iter().map(|l| (l.id.ms, l.attempts)).collect::<Vec<_>>(), [(37, 5)], "{named}");
        let expected: Vec<_> = (1..=100).filter(|n| *n != 37).collect();
        assert_eq!(*handled.lock().unwrap(), expected, "{ownership:?} {named}: each once, in order");
    }
}

#[tokio::test(start_paused = true)]
async fn g10_entries_of_a_dead_key_follow_it_in_order_until_it_is_dropped() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 9).await;
        let broken = Arc::new(AtomicBool::new(true));
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let (seen, is_broken) = (recorder.clone(), Arc::clone(&broken));
        // Keys: 1, 2 and 0.
        let handler = move |delivery: Delivery| {
            let fails = delivery.id().ms == 1 && is_broken.load(Ordering::Relaxed);
            if !fails {
                recorder.record(&delivery);
            }
            async move { if fails { Err(HandlerError::reject("no")) } else { Ok(()) } }
        };
        let builder = builder(&memory, ownership)
            .configure(|settings| settings.parked_entries_max = 100)
            .keyed(2, |delivery| delivery.id().ms % 3);
        let (stop, stopped) = stopper();
        let running = tokio::spawn(builder.build().unwrap().run(handler, stopped));
        until("it is settled", async || watermark(&memory).await == Some(EntryId::new(9, 0))).await;
        let parked = letters(&memory).await;
        let told: Vec<_> = parked.iter().map(|l| (l.id.ms, l.reason)).collect();
        let expected = [(1, DeathReason::Rejected), (4, DeathReason::Parked), (7, DeathReason::Parked)];
        assert_eq!(told, expected, "{ownership:?}");
        // Redriven in order, and then the key is free again.
        let stream = dead_letter_stream(&subscription()).unwrap();
        let entries = memory.entries_after(&stream, EntryId::ZERO, 10).await.unwrap();
        let out = entries.iter().zip(&parked).map(|(entry, l)| RedriveLetter::new(entry.id, l.id, l.key));
        memory.redrive(&Redrive::new(subscription(), stream, out.collect())).await.unwrap();
        append(&memory, 3).await;
        until("it goes on", async || watermark(&memory).await == Some(EntryId::new(12, 0))).await;
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
        let mut handled = seen.seen();
        handled.sort_unstable();
        assert_eq!(handled, [2, 3, 5, 6, 8, 9, 10, 11, 12], "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g4_an_entry_that_another_consumer_holds_is_not_dead_lettered() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let thief = memory.clone();
    let handler = move |_: Delivery| {
        let thief = thief.clone();
        async move {
            // Another consumer takes it while the handler runs, as after a pause longer than the heartbeat.
            let group = subscription();
            let pending = thief.inspect(&Inspect::subscription(&group)).await?.and_then(|state| state.group);
            if pending.is_some_and(|group| group.pending == 1) {
                Clock::new().sleep(Duration::from_secs(1)).await;
                thief.steal(&group, EntryId::new(1, 0), &ConsumerName::new("thief")?);
            }
            Err::<(), _>(HandlerError::reject("no"))
        }
    };
    let (stop, stopped) = stopper();
    let running = tokio::spawn(builder(&memory, Ownership::Shared).build().unwrap().run(handler, stopped));
    Clock::new().sleep(Duration::from_secs(2)).await;
    stop.send(()).unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.refused, report.dead_lettered), (1, 0), "{report:?}");
    assert_eq!(letters(&memory).await, []);
    let state = memory.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap();
    assert_eq!(state.group.unwrap().pending, 1, "the other one has it still");
}

#[tokio::test(start_paused = true)]
async fn g11_an_owner_that_was_overtaken_writes_no_letter() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let other = memory.clone();
    let handler = move |_: Delivery| {
        let other = other.clone();
        async move {
            // An operator takes the epoch while the handler runs.
            let reset =
                ResetCheckpoint::new(subscription(), crate::Position::at(EntryId::new(1, 0))).force(true);
            other.reset(&reset).await?;
            Err::<(), _>(HandlerError::reject("no"))
        }
    };
    let (stop, stopped) = stopper();
    let running = tokio::spawn(builder(&memory, Ownership::Exclusive).build().unwrap().run(handler, stopped));
    until("it begins again", async || {
        memory.load(&subscription()).await.unwrap().is_some_and(|c| c.epoch > Epoch(2))
    })
    .await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(letters(&memory).await, [], "the one who was overtaken is fenced");
}

#[tokio::test(start_paused = true)]
async fn g11_a_sink_takes_letters_and_what_it_refuses_comes_again() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 2).await;
        let (taken, tries) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (put, tried) = (Arc::clone(&taken), Arc::clone(&tries));
        let sink = DeadLetters::sink(move |letter: Letter| {
            let (put, nth) = (Arc::clone(&put), tried.fetch_add(1, Ordering::Relaxed));
            async move {
                if nth < 3 {
                    return Err(crate::Error::new(ErrorKind::Unavailable, "not now"));
                }
                put.lock().unwrap().push(letter.id.ms);
                Ok(())
            }
        });
        let handler = |_: Delivery| async { Err::<(), _>(HandlerError::reject("no")) };
        let builder = builder(&memory, ownership).dead_letters(sink);
        let report = run_to(&memory, builder, handler, 2).await;
        assert_eq!(
            (taken.lock().unwrap().as_slice(), report.dead_lettered),
            (&[1, 2][..], 2),
            "{ownership:?}"
        );
    }
}

#[test]
fn g18_dead_letters_that_cannot_work_are_refused_when_built() {
    let memory = Memory::new();
    let own = builder(&memory, Ownership::Shared).dead_letters(DeadLetters::Stream(subscription().stream));
    let unkeyed = builder(&memory, Ownership::Shared).configure(|s| s.parked_entries_max = 1);
    let elsewhere = builder(&memory, Ownership::Shared)
        .configure(|s| s.parked_entries_max = 1)
        .keyed(2, |delivery| delivery.id().ms)
        .dead_letters(DeadLetters::sink(|_: Letter| async { Ok(()) }));
    for builder in [own, unkeyed, elsewhere] {
        assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::Invalid);
    }
}
