//! Pause, resume, seek, reset.

use super::*;
use crate::{
    Incarnation,
    clock::Timestamp,
    integrity::Finding,
    layer::{Fault, Faults, Layer, Operation},
};

#[tokio::test(start_paused = true)]
async fn g3_a_seek_back_replays_all_from_there_and_discards_what_was_settled_ahead() {
    for ownership in both() {
        let memory = with(1..=30).await;
        with_holes(&memory, ownership).await;
        let before = stored(&memory).await;
        let epoch = operator(&memory).seek(SeekTo::Id(id(5)), "a bug in the handler").await.unwrap();
        let after = stored(&memory).await;
        assert!(epoch > before.epoch && after.epoch == epoch);
        assert_eq!((after.position.watermark, after.position.ahead), (id(5), SettledAhead::default()));
        assert_eq!(after.reason.as_deref(), Some("a bug in the handler"));
        assert!(!after.paused);

        let running = Running::start(&memory, ownership);
        running.until_seen(6..=30).await;
        let report = running.stop().await;
        assert_eq!(
            (report.settled, report.skipped, report.watermark),
            (25, 0, Some(id(30))),
            "{ownership:?}"
        );
        let status = operator(&memory).status().await.unwrap();
        assert_eq!((status.finding, status.pending(), status.consumers_alive()), (None, 0, 0));
        assert!(status.checkpoint.unwrap().epoch >= epoch);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_the_living_are_not_moved_unless_it_is_forced_and_then_at_once() {
    for ownership in both() {
        let memory = with(1..=10).await;
        let running = Running::start(&memory, ownership);
        running.until_seen(1..=10).await;
        sleep(1).await;
        let before = stored(&memory).await;
        let operator = operator(&memory);
        for refused in [
            operator.seek(SeekTo::Id(id(7)), "").await,
            operator.pause("").await,
            operator.reset(Position::at(id(7)), "").await,
            operator.skip(id(10), "").await,
        ] {
            let error = refused.unwrap_err();
            // Nothing is left to skip: who finds that first says so.
            assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::Fenced), "{error}");
        }
        let error = operator.pause("").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Busy && error.to_string().contains("`force`"), "{error}");
        assert_eq!(stored(&memory).await, before, "{ownership:?}");

        let clock = Clock::started();
        operator.force(true).seek(SeekTo::Id(id(7)), "again").await.unwrap();
        running.until_seen((1..=10).chain(8..=10)).await;
        assert!(clock.elapsed() < Duration::from_secs(5), "{ownership:?}: {:?}", clock.elapsed());
        running.stop().await;
        assert_eq!(stored(&memory).await.position.watermark, id(10));
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_pause_survives_restarts_and_a_stop_in_it_is_immediate() {
    for ownership in both() {
        let memory = with(1..=3).await;
        operator(&memory).pause("a migration").await.unwrap();
        for _ in 0..2 {
            let running = Running::start(&memory, ownership);
            sleep(60).await;
            assert_eq!(running.seen(), [0u64; 0], "{ownership:?}");
            assert_eq!(*running.pauses.lock().unwrap(), [Some("a migration".to_owned())], "told once");
            let status = operator(&memory).status().await.unwrap();
            assert_eq!((status.is_paused(), status.consumers_alive()), (true, 0));
            assert_eq!(running.stop().await.delivered, 0);
        }
        let running = [Running::start(&memory, ownership), Running::start(&memory, ownership)];
        sleep(10).await;
        let epoch = operator(&memory).resume().await.unwrap();
        assert_eq!(
            operator(&memory).resume().await.unwrap(),
            stored(&memory).await.epoch,
            "it is not paused"
        );
        assert!(epoch <= stored(&memory).await.epoch);
        let [first, second] = running;
        until("all is handled", async || first.seen().len() + second.seen().len() == 3).await;
        first.stop().await;
        second.stop().await;
        assert_eq!(stored(&memory).await.position.watermark, id(3));
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_forced_pause_makes_the_running_stand_by() {
    for ownership in both() {
        let memory = with(1..=3).await;
        let (stream, checkpoints) = (memory.clone(), memory.clone());
        let two_stores = Consumer::builder(subscription(), stream, checkpoints);
        let running = [Running::build(two_stores, ownership), Running::start(&memory, ownership)];
        let seen = || running.iter().map(|r| r.seen().len()).sum::<usize>();
        until("they run", async || seen() == 3).await;
        sleep(1).await;
        let operator = operator(&memory);
        operator.clone().force(true).pause("enough").await.unwrap();
        let told = || running.iter().all(|r| r.pauses.lock().unwrap().len() == 1);
        until("all stand by", async || told()).await;
        // Nobody counts as alive, so all else goes without force.
        operator.seek(SeekTo::Id(id(2)), "").await.unwrap();
        append(&memory, 4..=6).await;
        sleep(10).await;
        assert_eq!(seen(), 3, "a seek does not end a pause");
        operator.resume().await.unwrap();
        until("they go on", async || seen() == 3 + 4).await;
        for running in running {
            running.stop().await;
        }
        assert_eq!(stored(&memory).await.position.watermark, id(6));
    }
}

#[tokio::test(start_paused = true)]
async fn g8_an_owner_that_comes_between_a_pause_and_its_look_gives_the_lease_back() {
    let memory = with(1..=3).await;
    let faults = Faults::new();
    // It finds no pause, and takes the lease when there is one.
    faults.next(Operation::Acquire, Fault::Delay(Duration::from_millis(100)));
    let builder = Consumer::builder(subscription(), memory.clone(), faults.wrap(memory.clone()));
    let running = Running::build(builder, Ownership::Exclusive);
    Clock::new().sleep(Duration::from_millis(50)).await;
    operator(&memory).pause("").await.unwrap();
    until("it stands by", async || running.pauses.lock().unwrap().len() == 1).await;
    operator(&memory).seek(SeekTo::End, "").await.expect("nobody holds the lease");
    assert_eq!(running.seen(), [0u64; 0]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn g8_a_move_that_was_interrupted_loses_nothing_and_is_repeated() {
    for fault in [Fault::Before, Fault::After] {
        for (operation, nth) in [(Operation::Reset, 0), (Operation::Remove, 0), (Operation::Reset, 1)] {
            let memory = with(1..=30).await;
            with_holes(&memory, Ownership::Shared).await;
            let faults = Faults::new();
            (0..nth).for_each(|_| faults.next(operation, Fault::Delay(Duration::ZERO)));
            faults.next(operation, fault);
            let operator = Operator::new(
                subscription(),
                faults.clone().wrap(memory.clone()),
                faults.clone().wrap(memory.clone()),
            );
            let case = format!("{fault:?} {operation} {nth}");
            operator.seek(SeekTo::Id(id(5)), "again").await.unwrap_err();
            let between = stored(&memory).await;
            let done = (operation, nth, fault) == (Operation::Reset, 1, Fault::After);
            assert_eq!(between.position.watermark, if done { id(5) } else { id(10) }, "{case}");
            // Interrupted in the middle, nobody consumes what is half moved.
            let running = Running::start(&memory, Ownership::Shared);
            sleep(2).await;
            let began = (operation, nth, fault) != (Operation::Reset, 0, Fault::Before);
            assert_eq!(running.seen().is_empty(), began && !done, "{case}");
            running.stop().await;
            operator.seek(SeekTo::Id(id(5)), "again").await.unwrap();
            let running = Running::start(&memory, Ownership::Shared);
            running.until_seen(6..=30).await;
            running.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g14_a_move_that_is_dropped_at_any_await_is_repeated() {
    for ownership in both() {
        for dropped_after in 0..10 {
            let memory = with(1..=30).await;
            with_holes(&memory, ownership).await;
            let faults = Faults::new();
            faults.all(Fault::Late(Duration::from_millis(1)));
            let (stream, checkpoints) =
                (faults.clone().wrap(memory.clone()), faults.clone().wrap(memory.clone()));
            let operator = Operator::new(subscription(), stream, checkpoints);
            let limit = Clock::new();
            tokio::select! {
                biased;
                () = limit.sleep(Duration::from_micros(dropped_after * 1_000 + 500)) => {}
                sought = operator.seek(SeekTo::Id(id(5)), "") => drop(sought.unwrap()),
            }
            operator.seek(SeekTo::Id(id(5)), "").await.unwrap();
            let running = Running::start(&memory, ownership);
            running.until_seen(6..=30).await;
            running.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g8_an_interrupted_move_can_also_be_given_up() {
    let memory = with(1..=30).await;
    with_holes(&memory, Ownership::Shared).await;
    let faults = Faults::new();
    faults.next(Operation::Remove, Fault::After);
    let operator = Operator::new(subscription(), faults.wrap(memory.clone()), memory.clone());
    operator.seek(SeekTo::End, "").await.unwrap_err();
    operator.resume().await.unwrap();
    let running = Running::start(&memory, Ownership::Shared);
    running.until_seen([11, 15].into_iter().chain(21..=30)).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn g8_a_slow_consumer_does_not_create_the_group_where_it_was() {
    let memory = with(1..=30).await;
    with_holes(&memory, Ownership::Shared).await;
    let faults = Faults::new();
    // It has loaded the checkpoint when the seek takes place, and creates the group only then.
    faults.next(Operation::EnsureGroup, Fault::Delay(Duration::from_millis(100)));
    let builder = Consumer::builder(subscription(), faults.wrap(memory.clone()), memory.clone());
    let running = Running::build(builder, Ownership::Shared);
    Clock::new().sleep(Duration::from_millis(50)).await;
    operator(&memory).seek(SeekTo::Id(id(5)), "").await.unwrap();
    running.until_seen(6..=30).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_seek_to_the_end_the_start_or_a_time_delivers_what_it_says() {
    for ownership in both() {
        for (to, expected) in [
            (SeekTo::End, 31..=32),
            (SeekTo::Start, 11..=32),
            (SeekTo::Time(Timestamp::from_millis(25)), 25..=32),
            (SeekTo::Time(Timestamp::from_millis(1_000_000)), 31..=32),
            (SeekTo::Id(id(3)), 11..=32),
        ] {
            let memory = with(1..=30).await;
            with_holes(&memory, ownership).await;
            let trim = Trim::new(subscription().stream, TrimLimit::Below(id(11)));
            memory.trim(&trim).await.unwrap();
            operator(&memory).seek(to, "").await.unwrap();
            append(&memory, 31..=32).await;
            let running = Running::start(&memory, ownership);
            running.until_seen(expected).await;
            running.stop().await;
            let status = operator(&memory).status().await.unwrap();
            assert_eq!(status.finding, None, "{ownership:?} {to:?}");
            assert_eq!(status.backlog.unwrap_or_default(), 0, "{ownership:?} {to:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_position_of_another_stream_is_refused_and_a_seek_repairs() {
    let memory = with(1..=10).await;
    let operator = operator(&memory);
    let other = Some(Incarnation::new("other").unwrap());
    for position in [Position::at(id(11)), Position::at(id(5)).with_incarnation(other)] {
        let error = operator.reset(position, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Reset);
        assert!(memory.load(&subscription()).await.unwrap().is_none(), "nothing was changed");
    }
    assert_eq!(operator.seek(SeekTo::Id(id(11)), "").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(operator.pause("\n").await.unwrap_err().kind(), ErrorKind::Invalid);
    operator.reset(Position::at(id(5)).with_ordinal(Some(5)), "as noted").await.unwrap();
    assert_eq!(operator.status().await.unwrap().backlog, Some(5));

    memory.remove(&Removal::Stream(subscription().stream)).await.unwrap();
    append(&memory, 1..=3).await;
    let status = operator.status().await.unwrap();
    assert!(matches!(status.finding, Some(Finding::Reset(_))) && status.backlog.is_none(), "{status:?}");
    assert_eq!(operator.skip(id(1), "").await.unwrap_err().kind(), ErrorKind::Reset);
    operator.seek(SeekTo::Start, "").await.unwrap();
    let running = Running::start(&memory, Ownership::Exclusive);
    running.until_seen(1..=3).await;
    running.stop().await;
}
