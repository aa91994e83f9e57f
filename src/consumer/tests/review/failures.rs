//! Findings in what follows when a handler fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::StreamExt;

use super::*;
use crate::{
    ConsumerName, DeathReason, Error, ErrorKind, Letter, Position, dead_letter_stream,
    layer::{Attempt, Call},
};

async fn letters(memory: &Memory) -> Vec<(u64, DeathReason)> {
    let stream = dead_letter_stream(&subscription()).unwrap();
    let entries = memory.entries_after(&stream, EntryId::ZERO, 1_000).await.unwrap();
    let letters = entries.iter().map(|entry| Letter::from_entry(entry).unwrap());
    letters.map(|letter| (letter.id.ms, letter.reason)).collect()
}

/// So many entries, which a consumer has read that is dead.
async fn read_by_the_dead(memory: &Memory, count: u64) {
    append(memory, count).await;
    memory.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    let dead = ConsumerName::new("dead").unwrap();
    let beat = Heartbeat::new(subscription(), dead.clone(), Token(1), Duration::from_secs(3));
    memory.heartbeat(&beat).await.unwrap();
    memory.read_group(&ReadGroup::new(subscription(), dead, 1_000)).await.unwrap();
    Clock::new().sleep(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn g11_what_comes_alone_since_its_batch_was_rejected_is_given_up_in_the_end() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 3).await;
        let handler = |batch: Vec<Delivery>| async move {
            match &batch[..] {
                [delivery] if delivery.id() == id(2) => Err(HandlerError::retry("never")),
                [_] => Ok(()),
                _ => Err(HandlerError::reject("one of them is wrong")),
            }
        };
        let (stop, stopped) = stopper();
        let consumer = builder(&memory, ownership).build().unwrap();
        let run = tokio::spawn(consumer.run_batches(handler, stopped));
        let all = soon(async || watermark(&memory).await == Some(id(3))).await;
        assert!(all, "{ownership:?}: it is tried for ever");
        assert_eq!(letters(&memory).await, [(2, DeathReason::Exhausted)], "{ownership:?}");
        stop.send(()).unwrap();
        run.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn g11_nobody_has_died_of_what_waits_beside_a_failure() {
    let memory = Memory::new();
    read_by_the_dead(&memory, 2).await;
    let first = AtomicBool::new(true);
    let handler = move |_: Vec<Delivery>| {
        let fails = first.swap(false, Ordering::Relaxed);
        async move { if fails { Err(HandlerError::retry("once").at(0)) } else { Ok(()) } }
    };
    let (stop, stopped) = stopper();
    let builder = builder(&memory, Ownership::Shared).configure(|settings| settings.crashes_max = 1);
    let run = tokio::spawn(builder.build().unwrap().run_batches(handler, stopped));
    until("it is settled", async || watermark(&memory).await == Some(id(2))).await;
    assert_eq!(letters(&memory).await, []);
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn g11_a_lost_lease_is_no_death_of_the_process() {
    let memory = Memory::new();
    append(&memory, 2).await;
    let (faults, go) = (Faults::new(), Arc::new(AtomicBool::new(false)));
    let may = Arc::clone(&go);
    let handler = move |_: Delivery| {
        let may = Arc::clone(&may);
        async move {
            while !may.load(Ordering::Relaxed) {
                Clock::new().sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, HandlerError>(())
        }
    };
    faults.always(Operation::Renew, Fault::Before);
    let (stop, stopped) = stopper();
    let consumer = faulty(&memory, &faults, Ownership::Exclusive).build().unwrap();
    let run = tokio::spawn(consumer.run(handler, stopped));
    until("the lease was lost often", async || faults.calls(Operation::Acquire) > 10).await;
    go.store(true, Ordering::Relaxed);
    faults.clear();
    until("it is settled", async || watermark(&memory).await == Some(id(2))).await;
    assert_eq!(letters(&memory).await, [], "the process lives");
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
    let left = memory.attempts(&LoadAttempts::all(subscription())).await.unwrap();
    assert_eq!(left, [], "nothing is left to remember");
}

#[tokio::test(start_paused = true)]
async fn g18_a_sink_that_refuses_for_good_ends_the_consumer() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 1).await;
        let sink = DeadLetters::sink(|_: Letter| async { Err(Error::invalid("there is no such table")) });
        let handler = |_: Delivery| async { Err::<(), _>(HandlerError::reject("no")) };
        let consumer = builder(&memory, ownership)
            .configure(|settings| settings.drain_timeout = Duration::from_secs(1))
            .dead_letters(sink)
            .build()
            .unwrap();
        let run = tokio::spawn(consumer.run(handler, std::future::pending::<()>()));
        assert!(soon(async || run.is_finished()).await, "{ownership:?}: it goes on for ever");
        assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    }
}

/// A store that has lost the epoch when it is told of attempts first.
#[derive(Debug, Default)]
struct Forgetful(AtomicBool);

impl Layer for Forgetful {
    async fn call<'a, T: Send + 'a>(&'a self, call: Call, attempt: Attempt<'a, T>) -> Result<T> {
        if call.operation == Operation::NoteAttempts && !self.0.swap(true, Ordering::Relaxed) {
            return Err(Error::invalid("this epoch was never issued, or the record was lost"));
        }
        attempt().await
    }
}

#[tokio::test(start_paused = true)]
async fn g16_a_note_to_a_store_that_lost_the_epoch_is_made_again() {
    let memory = Memory::new();
    append(&memory, 2).await;
    let handler =
        |delivery: Delivery| async move { if delivery.attempt == 1 { Err("once") } else { Ok(()) } };
    let (stop, stopped) = stopper();
    let consumer =
        Consumer::fused(subscription(), Forgetful::default().wrap(memory.clone())).build().unwrap();
    let run = tokio::spawn(consumer.run(handler, stopped));
    let all = soon(async || watermark(&memory).await == Some(id(2))).await;
    assert!(all, "{:?}", run.await.unwrap());
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn g11_what_nobody_took_by_hand_has_not_timed_out() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let mut deliveries = builder(&memory, Ownership::Shared)
        .configure(|settings| settings.handler_timeout = Some(Duration::from_secs(1)))
        .build()
        .unwrap()
        .into_stream();
    Clock::new().sleep(Duration::from_secs(60)).await;
    let first = deliveries.next().await.unwrap().unwrap();
    assert_eq!(first.attempt, 1, "nobody has seen it");
    // Taken, it has so long.
    let second = deliveries.next().await.unwrap().unwrap();
    assert_eq!((second.id(), second.attempt), (id(1), 2));
    drop(first);
    second.settle();
    until("it is settled", async || watermark(&memory).await == Some(id(1))).await;
    deliveries.stop().await.unwrap();
    assert_eq!(letters(&memory).await, []);
}

#[tokio::test(start_paused = true)]
async fn g6_what_comes_again_while_its_letter_is_refused_is_handled() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let faults = Faults::new();
    // The group goes before the letter is asked for, and the refusal comes after the new group has delivered the entry.
    faults.next(Operation::DeadLetter, Fault::Late(Duration::from_secs(5)));
    let (server, calls) = (memory.clone(), Arc::new(AtomicUsize::new(0)));
    let (counted, slow) = (Arc::clone(&calls), faults.clone());
    let handler = move |_: Delivery| {
        let (server, slow, nth) = (server.clone(), slow.clone(), counted.fetch_add(1, Ordering::Relaxed));
        async move {
            if nth == 0 {
                slow.next(Operation::EnsureGroup, Fault::Delay(Duration::from_secs(1)));
                server.remove(&Removal::Group(subscription())).await?;
            }
            Err::<(), _>(HandlerError::reject("no"))
        }
    };
    let (stop, stopped) = stopper();
    let run =
        tokio::spawn(faulty(&memory, &faults, Ownership::Shared).build().unwrap().run(handler, stopped));
    let all = soon(async || watermark(&memory).await == Some(id(1))).await;
    assert!(all, "handled {} times, pending {:?}", calls.load(Ordering::Relaxed), pending(&memory).await);
    assert_eq!(letters(&memory).await, [(1, DeathReason::Rejected)]);
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn g11_suspects_do_not_wait_for_each_other() {
    let memory = Memory::new();
    read_by_the_dead(&memory, 8).await;
    // As who collects some before it settles them.
    let together = Arc::new(tokio::sync::Barrier::new(8));
    let handler = move |_: Delivery| {
        let together = Arc::clone(&together);
        async move {
            together.wait().await;
            Ok::<_, HandlerError>(())
        }
    };
    let (stop, stopped) = stopper();
    let consumer = builder(&memory, Ownership::Shared).concurrency(8).build().unwrap();
    let run = tokio::spawn(consumer.run(handler, stopped));
    let all = soon(async || watermark(&memory).await == Some(id(8))).await;
    assert!(all, "they come one at a time");
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn g11_a_shutdown_that_runs_out_of_time_is_no_death_either() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 1).await;
        let faults = Faults::new();
        faults.always(Operation::NoteAttempts, Fault::Delay(Duration::from_millis(20)));
        for _ in 0..10 {
            let (begun, is_begun) = stopper();
            let begun = Arc::new(Mutex::new(Some(begun)));
            let handler = move |_: Delivery| {
                begun.lock().unwrap().take().map(|begun| begun.send(()));
                std::future::pending::<Result<(), HandlerError>>()
            };
            let consumer = faulty(&memory, &faults, ownership)
                .configure(|settings| settings.drain_timeout = Duration::from_millis(50));
            let clock = Clock::started();
            let stop = async move {
                is_begun.await;
                clock.sleep(Duration::from_secs(1)).await;
            };
            let run = tokio::spawn(consumer.build().unwrap().run(handler, stop));
            assert!(soon(async || run.is_finished()).await, "{ownership:?}: it is not handled any more");
            run.await.unwrap().unwrap();
        }
        assert_eq!(letters(&memory).await, [], "{ownership:?}");
        assert_eq!(memory.attempts(&LoadAttempts::all(subscription())).await.unwrap(), [], "{ownership:?}");
    }
}
