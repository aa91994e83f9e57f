use futures_util::StreamExt;

use super::*;
use crate::{IdRange, Position, SettledAhead, consumer::tracker::Tracker};

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
