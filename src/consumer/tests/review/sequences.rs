//! Found by random sequences over the whole runtime: `conformance::model`.

use super::*;

/// A handler that says when it was called, and succeeds when it may.
fn gated(gate: &Arc<tokio::sync::Semaphore>, called: &Arc<Mutex<Vec<u64>>>) -> impl Handler {
    let (gate, called) = (Arc::clone(gate), Arc::clone(called));
    move |delivery: Delivery| {
        let (gate, called) = (Arc::clone(&gate), Arc::clone(&called));
        async move {
            called.lock().unwrap().push(delivery.id().ms);
            gate.acquire().await.map_err(|_| "closed")?.forget();
            Ok::<_, HandlerError>(())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g1_what_a_lane_gives_back_after_a_lapse_comes_again() {
    let (memory, faults) = (Memory::new(), Faults::new());
    append(&memory, 3).await;
    let (gate, called) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::default());
    let (stop, stopped) = stopper();
    let consumer = faulty(&memory, &faults, Ownership::Shared).build().unwrap();
    let run = tokio::spawn(consumer.run(gated(&gate, &called), stopped));
    assert!(soon(async || !called.lock().unwrap().is_empty()).await);
    // One lane holds all three, and its handler runs while the heartbeat is over.
    faults.always(Operation::Heartbeat, Fault::Before);
    Clock::new().sleep(Duration::from_secs(10)).await;
    faults.clear();
    Clock::new().sleep(Duration::from_secs(10)).await;
    gate.add_permits(3);
    assert!(soon(async || pending(&memory).await == Some(0)).await, "{:?}", called.lock().unwrap());
    drop(stop);
    assert_eq!(run.await.unwrap().unwrap().settled, 3);
}

#[tokio::test(start_paused = true)]
async fn g13_what_a_lane_gives_back_after_a_lapse_comes_again_where_claims_leave_no_room_to_read() {
    let (memory, faults) = (Memory::new(), Faults::new());
    append(&memory, 2).await;
    let (gate, called) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::default());
    let (stop, stopped) = stopper();
    let consumer = faulty(&memory, &faults, Ownership::Shared).configure(|settings| {
        (settings.read_entries_max, settings.in_flight_entries_max) = (16, 8);
        (settings.claim_min_idle, settings.block) = (Duration::from_secs(1), Duration::from_secs(600));
    });
    let run = tokio::spawn(consumer.build().unwrap().run(gated(&gate, &called), stopped));
    assert!(soon(async || !called.lock().unwrap().is_empty()).await);
    // One lane holds both, and its handler runs while the heartbeat is over.
    faults.always(Operation::Heartbeat, Fault::Before);
    Clock::new().sleep(Duration::from_secs(10)).await;
    faults.clear();
    Clock::new().sleep(Duration::from_secs(10)).await;
    // What it claims waits for what the lane gives back, and its reader waits for more.
    append(&memory, 6).await;
    let dead = crate::ConsumerName::new("dead").unwrap();
    assert_eq!(memory.read_group(&ReadGroup::new(subscription(), dead, 6)).await.unwrap().len(), 6);
    Clock::new().sleep(Duration::from_secs(10)).await;
    gate.add_permits(8);
    assert!(soon(async || pending(&memory).await == Some(0)).await, "{:?}", called.lock().unwrap());
    drop(stop);
    let report = run.await.unwrap().unwrap();
    assert_eq!((report.claimed, report.settled), (6, 8));
}

#[tokio::test(start_paused = true)]
async fn g15_a_stop_is_not_forgotten_when_the_lease_is_lost_during_it() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let (gate, called) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::default());
    let (stop, stopped) = stopper();
    let consumer = builder(&memory, Ownership::Exclusive).build().unwrap();
    let run = tokio::spawn(consumer.run(gated(&gate, &called), stopped));
    assert!(soon(async || !called.lock().unwrap().is_empty()).await);
    drop(stop);
    tokio::task::yield_now().await;
    let reset = ResetCheckpoint::new(subscription(), crate::Position::default()).force(true);
    memory.reset(&reset).await.unwrap();
    let report = tokio::time::timeout(Duration::from_secs(60), run).await.expect("it stops").unwrap();
    assert_eq!(report.unwrap().leases_lost, 1);
}

#[tokio::test(start_paused = true)]
async fn g4_a_reset_before_the_first_checkpoint_is_no_end() {
    for ownership in both() {
        let (memory, faults) = (Memory::new(), Faults::new());
        append(&memory, 3).await;
        // The first checkpoint waits, and the reset comes first.
        let first = if ownership == Ownership::Shared { Operation::Settle } else { Operation::Advance };
        faults.next(first, Fault::Delay(Duration::from_millis(100)));
        let (recorder, stopped) = Recorder::until(3);
        let consumer = faulty(&memory, &faults, ownership).build().unwrap();
        let run = tokio::spawn(consumer.run(recorder.clone(), stopped));
        Clock::new().sleep(Duration::from_millis(10)).await;
        let reset = ResetCheckpoint::new(subscription(), crate::Position::default()).force(true);
        memory.reset(&reset).await.unwrap();
        run.await.unwrap().unwrap();
        assert_eq!(recorder.seen(), to(3), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g10_what_comes_again_after_a_lapse_comes_before_later_ones_of_its_key() {
    for keyed in [true, false] {
        let (memory, faults) = (Memory::new(), Faults::new());
        append(&memory, 4).await;
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let called = Arc::<Mutex<Vec<u64>>>::default();
        let (stop, stopped) = stopper();
        let builder = faulty(&memory, &faults, Ownership::Shared);
        let builder = if keyed { builder.keyed(4, |_| 0) } else { builder };
        let handler = {
            let (gate, called) = (Arc::clone(&gate), Arc::clone(&called));
            move |delivery: Delivery| {
                let first = called.lock().unwrap().is_empty();
                called.lock().unwrap().push(delivery.id().ms);
                let gate = Arc::clone(&gate);
                async move {
                    if first {
                        gate.acquire().await.map_err(|_| "closed")?.forget();
                        return Err("it is given back".into());
                    }
                    Ok::<_, HandlerError>(())
                }
            }
        };
        let run = tokio::spawn(builder.build().unwrap().run(handler, stopped));
        assert!(soon(async || !called.lock().unwrap().is_empty()).await);
        // While 1 is handled the heartbeat is over, and what waits behind it is read again.
        faults.always(Operation::Heartbeat, Fault::Before);
        Clock::new().sleep(Duration::from_secs(10)).await;
        faults.clear();
        Clock::new().sleep(Duration::from_secs(10)).await;
        gate.add_permits(1);
        assert!(soon(async || pending(&memory).await == Some(0)).await, "{:?}", called.lock().unwrap());
        drop(stop);
        run.await.unwrap().unwrap();
        assert_eq!(*called.lock().unwrap(), [1, 1, 2, 3, 4], "keyed: {keyed}");
    }
}
