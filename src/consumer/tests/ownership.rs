//! G4, G13: who may take what from whom.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{ConsumerName, ErrorKind};

fn sleeper(time: Duration, calls: &Arc<AtomicUsize>) -> impl Handler {
    let calls = Arc::clone(calls);
    move |_: Delivery| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move {
            Clock::new().sleep(time).await;
            Ok::<_, HandlerError>(())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g13_a_long_handler_is_called_once_with_another_consumer_beside_it() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 1).await;
        let calls = Arc::default();
        let runs: Vec<_> = (0..2)
            .map(|_| {
                let (stop, stopped) = stopper();
                let consumer = builder(&memory, ownership).build().unwrap();
                (stop, tokio::spawn(consumer.run(sleeper(Duration::from_secs(120), &calls), stopped)))
            })
            .collect();
        until("it is settled", async || watermark(&memory).await.is_some_and(|w| w.ms == 1)).await;
        for (stop, run) in runs {
            stop.send(()).unwrap();
            run.await.unwrap().unwrap();
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g13_what_a_killed_consumer_held_goes_to_the_living_within_5_s() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 20).await;
        let calls = Arc::default();
        let killed = tokio::spawn(
            builder(&memory, ownership)
                .build()
                .unwrap()
                .run(sleeper(Duration::MAX, &calls), std::future::pending::<()>()),
        );
        until("it holds entries", async || calls.load(Ordering::Relaxed) == 1).await;
        let (recorder, stop) = Recorder::until(20);
        let living = tokio::spawn(builder(&memory, ownership).build().unwrap().run(recorder.clone(), stop));
        Clock::new().sleep(Duration::from_secs(60)).await;
        assert_eq!(recorder.seen(), [0u64; 0], "{ownership:?}: the living keep what they hold");
        killed.abort();
        assert!(killed.await.unwrap_err().is_cancelled());
        let clock = Clock::started();
        until("the first comes", async || !recorder.seen().is_empty()).await;
        assert!(clock.elapsed() < Duration::from_secs(5), "{ownership:?}: {:?}", clock.elapsed());
        living.await.unwrap().unwrap();
        assert_eq!(recorder.seen(), to(20));
    }
}

#[tokio::test(start_paused = true)]
async fn g13_two_live_processes_under_one_name_are_refused() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let named = || builder(&memory, Ownership::Shared).name(ConsumerName::new("c").unwrap()).build().unwrap();
    let calls = Arc::default();
    let first = tokio::spawn(named().run(sleeper(Duration::MAX, &calls), std::future::pending::<()>()));
    until("the first one runs", async || calls.load(Ordering::Relaxed) == 1).await;
    let error = named().run(sleeper(Duration::ZERO, &calls), std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // The name of a process that was killed is free after its time to live: the next one waits for that.
    let (recorder, stop) = Recorder::until(1);
    named().run(recorder.clone(), stop).await.unwrap();
    assert_eq!(recorder.seen(), [1]);
}

#[tokio::test(start_paused = true)]
async fn g4_an_owner_that_was_overtaken_is_fenced_and_takes_part_again() {
    let memory = Memory::new();
    append(&memory, 10).await;
    let (recorder, stop) = Recorder::until(usize::MAX);
    let slow = {
        let recorder = recorder.clone();
        move |delivery: Delivery| {
            recorder.record(&delivery);
            async {
                Clock::new().sleep(Duration::from_secs(10)).await;
                Ok::<_, HandlerError>(())
            }
        }
    };
    let run = tokio::spawn(builder(&memory, Ownership::Exclusive).build().unwrap().run(slow, stop));
    until("it runs", async || recorder.seen().len() == 1).await;
    // An operator moves the checkpoint while a handler runs: its late advance must not count.
    let reset = ResetCheckpoint::new(subscription(), crate::Position::at(EntryId::new(5, 0))).force(true);
    let epoch = memory.reset(&reset).await.unwrap();
    until("it goes on behind", async || recorder.seen().contains(&6)).await;
    assert!(!recorder.seen().contains(&2), "{:?}", recorder.seen());
    let checkpoint = memory.load(&subscription()).await.unwrap().unwrap();
    assert!(checkpoint.epoch > epoch, "the lease was taken again");
    assert_eq!(checkpoint.position.watermark.ms, 5);
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn one_owner_at_a_time_and_a_standby_follows_a_graceful_stop_at_once() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let (first, first_stop) = Recorder::until(usize::MAX);
    let (stop, stopped) = stopper();
    drop(first_stop);
    let owner =
        tokio::spawn(builder(&memory, Ownership::Exclusive).build().unwrap().run(first.clone(), stopped));
    until("the first owns it", async || first.seen().len() == 1).await;
    let (second, second_stop) = Recorder::until(5);
    let standby = tokio::spawn(
        builder(&memory, Ownership::Exclusive).build().unwrap().run(second.clone(), second_stop),
    );
    append(&memory, 5).await;
    until("the owner has all", async || first.seen().len() == 6).await;
    assert_eq!(second.seen(), [0u64; 0]);
    stop.send(()).unwrap();
    owner.await.unwrap().unwrap();
    append(&memory, 5).await;
    let clock = Clock::started();
    standby.await.unwrap().unwrap();
    assert!(clock.elapsed() < Duration::from_secs(1), "{:?}", clock.elapsed());
    assert_eq!(second.seen(), [7, 8, 9, 10, 11]);
}

type Built = Builder<Arc<Memory>, Arc<Memory>>;

/// One whose handler blocks the only thread at entry 1 until another has taken over, and the entries that it is called with.
fn blocks_its_thread(order: fn(Built) -> Built) -> Vec<u64> {
    let ttl = Duration::from_millis(200);
    let memory = Memory::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let consumer = |memory: &Memory| {
        let builder = builder(memory, Ownership::Exclusive).configure(|settings| settings.ttl = ttl);
        order(builder).build().unwrap()
    };
    runtime().block_on(append(&memory, 5));
    let (blocked, stop) = Recorder::until(usize::MAX);
    let (other, other_stop) = Recorder::until(5);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (taken_over, is_taken_over) = std::sync::mpsc::channel();
    let is_taken_over = Mutex::new(is_taken_over);
    let handler = {
        let blocked = blocked.clone();
        move |delivery: Delivery| {
            blocked.record(&delivery);
            if delivery.id().ms == 1 {
                begun.send(()).unwrap();
                is_taken_over.lock().unwrap().recv().unwrap();
            }
            std::future::ready(Ok::<_, HandlerError>(()))
        }
    };
    let (first, second) = (consumer(&memory), consumer(&memory));
    let (done, is_done) = stopper();
    let thread = std::thread::spawn(move || {
        runtime().block_on(first.run(handler, async {
            tokio::select! {
                _ = is_done => {}
                () = stop => {}
            }
        }))
    });
    has_begun.recv().unwrap();
    runtime().block_on(second.run(other.clone(), other_stop)).unwrap();
    assert_eq!(other.seen(), to(5));
    taken_over.send(()).unwrap();
    done.send(()).unwrap();
    thread.join().unwrap().unwrap();
    blocked.seen()
}

#[test]
fn g16_an_owner_whose_thread_was_blocked_past_its_lease_calls_no_handler() {
    assert_eq!(blocks_its_thread(|builder| builder), [1], "strict");
    assert_eq!(blocks_its_thread(|builder| builder.keyed(1, |_| 0)), [1], "keyed");
}
