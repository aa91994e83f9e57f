//! Findings of the simulation in `tests/sim`: each of these failed when it was written.

use super::*;
use crate::{ErrorKind, Position};

#[tokio::test(start_paused = true)]
async fn g7_what_a_stream_loses_that_was_not_there_at_the_start_is_missing() {
    for ownership in both() {
        let memory = Memory::new();
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let (stop, stopped) = stopper();
        let first = tokio::spawn(builder(&memory, ownership).build().unwrap().run(recorder, stopped));
        assert!(soon(async || watermark(&memory).await.is_some()).await, "{ownership:?}: it has begun");
        stop.send(()).unwrap();
        first.await.unwrap().unwrap();
        append(&memory, 10).await;
        memory.trim(&Trim::new(stream(), TrimLimit::Len(7))).await.unwrap();
        let (recorder, stop) = Recorder::until(7);
        let ended = builder(&memory, ownership).build().unwrap().run(recorder.clone(), stop).await;
        let error = ended.expect_err("1 to 3 were lost in silence");
        assert_eq!((error.kind(), recorder.seen()), (ErrorKind::Gap, vec![]), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_an_owner_that_was_overtaken_takes_nothing_for_a_gap() {
    let memory = Memory::new();
    append(&memory, 10).await;
    let faults = Faults::new();
    let (recorder, stop) = Recorder::until(1);
    faults.always(Operation::Read, Fault::Before);
    let consumer = faulty(&memory, &faults, Ownership::Exclusive)
        // Nothing else tells it that its time is over.
        .configure(|settings| settings.ttl = Duration::from_secs(86_400))
        .build()
        .unwrap();
    let run = tokio::spawn(consumer.run(recorder.clone(), stop));
    assert!(soon(async || watermark(&memory).await.is_some()).await);
    // Its successor settles all there is, which then leaves the stream.
    let all = Position::at(id(10)).with_ordinal(Some(10));
    memory.reset(&ResetCheckpoint::new(subscription(), all).force(true)).await.unwrap();
    memory.trim(&Trim::new(stream(), TrimLimit::Len(0))).await.unwrap();
    Clock::new().sleep(Duration::from_secs(60)).await;
    append(&memory, 1).await;
    faults.clear();
    let report = run.await.unwrap().expect("nothing is missing");
    assert_eq!((recorder.seen(), report.gaps, report.leases_lost), (vec![11], 0, 1));
}

#[tokio::test(start_paused = true)]
async fn g8_a_checkpoint_of_a_stream_that_came_later_knows_its_life() {
    for ownership in both() {
        let memory = Memory::new();
        let (recorder, stop) = Recorder::until(4);
        let run = tokio::spawn(builder(&memory, ownership).build().unwrap().run(recorder, stop));
        assert!(soon(async || watermark(&memory).await.is_some()).await, "{ownership:?}: it has begun");
        append(&memory, 3).await;
        Clock::new().sleep(Duration::from_secs(5)).await;
        append(&memory, 1).await;
        run.await.unwrap().unwrap();
        let stored = memory.load(&subscription()).await.unwrap().unwrap().position;
        let state = memory.inspect(&Inspect::stream(stream())).await.unwrap().unwrap();
        assert_eq!((stored.watermark, stored.incarnation), (id(4), state.incarnation), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_what_others_settle_while_a_consumer_looks_is_no_gap() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 10).await;
        let at = |n| Position::at(id(n)).with_ordinal(Some(n));
        memory.reset(&ResetCheckpoint::new(subscription(), at(5))).await.unwrap();
        let faults = Faults::new();
        // Between the two, others go on.
        faults.next(Operation::Inspect, Fault::Delay(Duration::from_secs(1)));
        let (recorder, stop) = Recorder::until(1);
        let consumer = faulty(&memory, &faults, ownership).build().unwrap();
        let run = tokio::spawn(consumer.run(recorder.clone(), stop));
        Clock::new().sleep(Duration::from_millis(500)).await;
        memory.reset(&ResetCheckpoint::new(subscription(), at(10)).force(true)).await.unwrap();
        memory.trim(&Trim::new(stream(), TrimLimit::Len(0))).await.unwrap();
        Clock::new().sleep(Duration::from_secs(10)).await;
        append(&memory, 1).await;
        let report =
            run.await.unwrap().unwrap_or_else(|error| panic!("{ownership:?}: nothing is missing: {error}"));
        assert_eq!((recorder.seen(), report.gaps), (vec![11], 0), "{ownership:?}");
    }
}
