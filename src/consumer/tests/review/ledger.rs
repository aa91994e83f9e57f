use futures_util::StreamExt;

use super::*;
use crate::{
    IdRange, Position, SettledAhead,
    consumer::{
        context::{Context, Parts},
        ledger::{Held, Ledger, Save},
        observer::Reporter,
        settle::Settler,
        tracker::{Admission, Tracker},
    },
};

#[test]
fn g5_a_run_of_holes_that_was_read_in_part_stays_unsettled() {
    let ahead = SettledAhead::from_ranges(id(100), [IdRange { first: id(5), last: id(9) }]);
    let mut tracker = Tracker::new(Position::at(id(4)).with_ahead(ahead));
    for n in 5..=7 {
        tracker.admit(id(n));
    }
    tracker.settle(id(5));
    let saved = tracker.position(768);
    for n in 6..=9 {
        assert!(!saved.settles(id(n)), "{n} was never handled: {saved:?}");
    }
    assert!(saved.settles(id(10)), "{saved:?}");
}

#[tokio::test(start_paused = true)]
async fn g5_a_restart_in_the_middle_of_a_run_of_holes_loses_nothing() {
    let memory = Memory::new();
    append(&memory, 20).await;
    let mut deliveries =
        builder(&memory, Ownership::Exclusive).concurrency(20).build().unwrap().into_stream();
    let mut held = Vec::new();
    for _ in 0..20 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        if (5..=9).contains(&delivery.id().ms) { held.push(delivery) } else { delivery.settle() }
    }
    assert!(
        soon(async || memory.load(&subscription()).await.unwrap().unwrap().position.settles(id(20))).await
    );
    drop((deliveries, held));
    // The next owner reads a part of the run, settles the first of it and goes.
    let mut deliveries = builder(&memory, Ownership::Exclusive)
        .configure(|settings| {
            settings.in_flight_entries_max = 3;
            settings.read_entries_max = 3;
        })
        .build()
        .unwrap()
        .into_stream();
    let first = deliveries.next().await.unwrap().unwrap();
    assert_eq!(first.id().ms, 5);
    first.settle();
    assert!(soon(async || watermark(&memory).await == Some(id(5))).await);
    drop(deliveries);
    let (recorder, stop) = Recorder::until(4);
    builder(&memory, Ownership::Exclusive).build().unwrap().run(recorder.clone(), stop).await.unwrap();
    assert_eq!(recorder.seen(), [6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn g10_after_a_lapse_a_key_is_still_handled_one_at_a_time() {
    let memory = Memory::new();
    append(&memory, 3).await;
    let faults = Faults::new();
    let log: Arc<Mutex<Vec<(u64, &str)>>> = Arc::default();
    let handler = {
        let log = Arc::clone(&log);
        move |delivery: Delivery| {
            let log = Arc::clone(&log);
            async move {
                log.lock().unwrap().push((delivery.id().ms, "begins"));
                Clock::new().sleep(Duration::from_secs(20)).await;
                log.lock().unwrap().push((delivery.id().ms, "ends"));
                Ok::<_, HandlerError>(())
            }
        }
    };
    let (stop, stopped) = stopper();
    let consumer = faulty(&memory, &faults, Ownership::Shared).keyed(4, |_| 1).build().unwrap();
    let run = tokio::spawn(consumer.run(handler, stopped));
    assert!(soon(async || !log.lock().unwrap().is_empty()).await);
    faults.always(Operation::Heartbeat, Fault::Before);
    Clock::new().sleep(Duration::from_secs(5)).await;
    faults.clear();
    until("all are handled", async || log.lock().unwrap().len() >= 6).await;
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
    let order: Vec<_> = [1, 2, 3].into_iter().flat_map(|n| [(n, "begins"), (n, "ends")]).collect();
    assert_eq!(*log.lock().unwrap(), order);
}

#[tokio::test(start_paused = true)]
async fn g8_what_was_handled_of_the_stream_before_does_not_settle_the_new_one() {
    let memory = Memory::new();
    append(&memory, 5).await;
    let (recorder, _stop) = Recorder::until(usize::MAX);
    let (stop, stopped) = stopper();
    let consumer = builder(&memory, Ownership::Shared)
        .configure(|settings| {
            settings.on_reset = OnReset::FromBeginning;
            settings.checkpoint = CheckpointPolicy::Interval(Duration::from_secs(5));
        })
        .build()
        .unwrap();
    let run = tokio::spawn(consumer.run(recorder.clone(), stopped));
    assert!(soon(async || watermark(&memory).await == Some(id(5))).await);
    append(&memory, 5).await;
    assert!(soon(async || recorder.seen().len() == 10).await);
    // 6 to 10 are handled and not in the checkpoint.
    memory.remove(&Removal::Stream(stream())).await.unwrap();
    append(&memory, 10).await;
    let all = soon(async || recorder.seen().len() == 20).await;
    assert!(all, "entries of the new stream were never handled: {:?}", &recorder.seen()[10..]);
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn g8_what_was_handled_before_the_first_checkpoint_does_not_settle_a_new_stream() {
    let memory = Memory::new();
    append(&memory, 10).await;
    let (recorder, _stop) = Recorder::until(usize::MAX);
    let (stop, stopped) = stopper();
    let consumer = builder(&memory, Ownership::Shared)
        .configure(|settings| settings.checkpoint = CheckpointPolicy::Interval(Duration::from_secs(5)))
        .build()
        .unwrap();
    let run = tokio::spawn(consumer.run(recorder.clone(), stopped));
    assert!(soon(async || recorder.seen().len() == 10).await);
    memory.remove(&Removal::Stream(stream())).await.unwrap();
    append(&memory, 10).await;
    let all = soon(async || recorder.seen().len() == 20 || run.is_finished()).await;
    assert!(all, "entries of the new stream were acked and never handled: {:?}", watermark(&memory).await);
    let _ = stop.send(());
    let _ = run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn g4_a_position_from_before_a_reset_is_not_saved_under_the_new_epoch() {
    let (memory, store, faults) = (Memory::new(), Memory::new(), Faults::new());
    append(&memory, 10).await;
    let consumer = Consumer::builder(subscription(), faults.clone().wrap(memory.clone()), store.clone());
    let (recorder, _stop) = Recorder::until(usize::MAX);
    let (stop, stopped) = stopper();
    let run = tokio::spawn(consumer.build().unwrap().run(recorder.clone(), stopped));
    assert!(soon(async || watermark(&store).await == Some(id(10))).await);
    faults.next(Operation::Ack, Fault::Late(Duration::from_secs(5)));
    append(&memory, 10).await;
    assert!(soon(async || recorder.seen().len() == 20).await);
    Clock::new().sleep(Duration::from_millis(100)).await;
    // An operator rewinds, while the ack's answer is on its way.
    memory.remove(&Removal::Group(subscription())).await.unwrap();
    let reset = ResetCheckpoint::new(subscription(), Position::at(id(3))).force(true);
    let epoch = store.reset(&reset).await.unwrap();
    let replayed = soon(async || recorder.seen()[20..].contains(&4)).await;
    Clock::new().sleep(Duration::from_secs(10)).await;
    let mut seen = recorder.seen()[20..].to_vec();
    seen.sort_unstable();
    seen.dedup();
    assert!(replayed && seen == (4..=20).collect::<Vec<_>>(), "the rewind was undone: {seen:?}");
    assert_eq!(store.load(&subscription()).await.unwrap().unwrap().epoch, epoch);
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

/// A consumer of two stores that was given all there is.
async fn holds_all(memory: &Memory, stream: impl StreamBackend, store: &Memory) -> Context {
    let name = crate::ConsumerName::new("c").unwrap();
    memory.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    memory.read_group(&ReadGroup::new(subscription(), name.clone(), 10)).await.unwrap();
    Context::new(Parts {
        subscription: subscription(),
        name,
        settings: Settings::default(),
        stream: Arc::new(stream),
        store: Arc::new(store.clone()),
        settler: Settler::TwoStep,
        dead: DeadLetters::Stream(crate::dead_letter_stream(&subscription()).unwrap()),
        clock: Clock::started(),
        reporter: Reporter { subscription: subscription(), observer: None },
    })
}

#[tokio::test]
async fn g5_a_two_step_save_keeps_what_the_checkpoint_had_as_settled_ahead() {
    let (memory, store) = (Memory::new(), Memory::new());
    append(&memory, 6).await;
    // 3 and 5 were settled in a group that was lost since.
    let known = Position::at(id(0)).with_ahead(SettledAhead::new(id(5), [id(1), id(2), id(4)]));
    store
        .advance(&Advance::new(
            subscription(),
            crate::Epoch(0),
            known.clone(),
            crate::ConsumerName::new("c").unwrap(),
        ))
        .await
        .unwrap();
    let context = holds_all(&memory, memory.clone(), &store).await;
    let mut ledger = Ledger::Shared(Held::new(known));
    for ms in [6, 1] {
        assert_eq!(ledger.admit(id(ms)), Admission::New);
        ledger.settle(id(ms));
        let save = ledger.save(10);
        context.settler.save(&context, crate::Epoch(0), &save, false).await.unwrap();
        ledger.saved(&save, None);
    }
    let stored = store.load(&subscription()).await.unwrap().unwrap().position;
    let settled: Vec<_> = (1..=6).filter(|&ms| stored.settles(id(ms))).collect();
    assert_eq!(settled, [1, 3, 5, 6], "{stored:?}");
}

#[tokio::test(start_paused = true)]
async fn g4_a_two_step_save_keeps_the_epoch_that_it_began_with() {
    let (memory, store, faults) = (Memory::new(), Memory::new(), Faults::new());
    append(&memory, 10).await;
    faults.next(Operation::Ack, Fault::Late(Duration::from_secs(5)));
    let context = holds_all(&memory, faults.wrap(memory.clone()), &store).await;
    let save = Save { ids: (1..=10).map(id).collect(), ..Save::default() };
    let rewind = async {
        Clock::new().sleep(Duration::from_secs(1)).await;
        let reset = ResetCheckpoint::new(subscription(), Position::at(id(3))).force(true);
        // The resume path learns the new epoch while the ack's answer is on its way.
        context.set_epoch(store.reset(&reset).await.unwrap());
    };
    let (saved, ()) = tokio::join!(context.settler.save(&context, context.epoch(), &save, false), rewind);
    assert_eq!(
        watermark(&store).await,
        Some(id(3)),
        "what was learned before a reset moved the checkpoint after it"
    );
    assert_eq!(saved.unwrap_err().kind(), crate::ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn g5_what_was_settled_ahead_stays_so_when_the_group_is_lost() {
    let memory = Memory::new();
    append(&memory, 100).await;
    let mut deliveries = builder(&memory, Ownership::Shared).concurrency(100).build().unwrap().into_stream();
    let mut held = Vec::new();
    for _ in 0..100 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        if delivery.id().ms == 50 { held.push(delivery) } else { delivery.settle() }
    }
    assert!(
        soon(async || memory.load(&subscription()).await.unwrap().unwrap().position.settles(id(100))).await
    );
    drop((deliveries, held));
    memory.remove(&Removal::Group(subscription())).await.unwrap();
    // The next one settles 50, the only hole, and is killed before it has read all that is settled ahead.
    let (first, _stop) = Recorder::until(usize::MAX);
    let faults = Faults::new();
    faults.next(Operation::ReadGroup, Fault::Delay(Duration::ZERO));
    faults.always(Operation::ReadGroup, Fault::Hang);
    let consumer = faulty(&memory, &faults, Ownership::Shared)
        .configure(|settings| {
            settings.read_entries_max = 10;
            settings.in_flight_entries_max = 10;
        })
        .build()
        .unwrap();
    let run = tokio::spawn(consumer.run(first.clone(), std::future::pending::<()>()));
    assert!(soon(async || watermark(&memory).await.unwrap() >= id(50)).await);
    run.abort();
    let _ = run.await;
    assert_eq!(first.seen(), [50]);
    append(&memory, 1).await;
    let (recorder, stop) = Recorder::until(1);
    builder(&memory, Ownership::Shared).build().unwrap().run(recorder.clone(), stop).await.unwrap();
    assert_eq!(recorder.seen(), [101], "51 to 100 were settled ahead");
}
