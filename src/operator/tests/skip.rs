//! Skipping one entry.

use futures_util::future::join_all;

use super::*;
use crate::{
    Attempts,
    backend::{LoadAttempts, NoteAttempts, Settlement, TransactionalCheckpoint, Trim, TrimLimit},
    layer::{Fault, Faults, Layer, Operation},
};

#[tokio::test(start_paused = true)]
async fn g3_of_many_that_skip_an_entry_one_does() {
    for ownership in both() {
        for next in [11, 21] {
            let memory = with(1..=30).await;
            with_holes(&memory, ownership).await;
            if next == 21 {
                for skipped in [11, 15] {
                    operator(&memory).skip(id(skipped), "").await.unwrap();
                }
            }
            let faults = Faults::new();
            // All have looked before the first of them skips.
            faults.always(Operation::Read, Fault::Late(Duration::from_millis(10)));
            let operator = Operator::new(subscription(), faults.wrap(memory.clone()), memory.clone());
            let skipped = join_all((0..100).map(|_| operator.skip(id(next), "poison"))).await;
            let (done, refused): (Vec<_>, Vec<_>) = skipped.into_iter().partition(|skipped| skipped.is_ok());
            assert_eq!(done.len(), 1, "{ownership:?}");
            assert!(refused.into_iter().all(|refused| refused.unwrap_err().kind() == ErrorKind::Fenced));
            let running = Running::start(&memory, ownership);
            let left = [15].into_iter().filter(|_| next == 11);
            running.until_seen(left.chain((21..=30).filter(|n| *n != next))).await;
            running.stop().await;
            assert_eq!(stored(&memory).await.position.watermark, id(30));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g2_a_skip_moves_the_watermark_over_what_was_settled_ahead() {
    let memory = with(1..=30).await;
    with_holes(&memory, Ownership::Exclusive).await;
    let operator = operator(&memory);
    for not_next in [10, 12, 15, 21, 99] {
        let error = operator.skip(id(not_next), "").await.unwrap_err();
        assert_eq!((error.kind(), error.context("next")), (ErrorKind::Fenced, Some("11-0")), "{not_next}");
    }
    operator.skip(id(11), "poison").await.unwrap();
    let position = stored(&memory).await.position;
    assert!(position.watermark >= id(11) && position.settles(id(14)) && !position.settles(id(15)));
    assert_eq!(position.ordinal, Some(position.watermark.ms));
    operator.skip(id(15), "poison").await.unwrap();
    let position = stored(&memory).await.position;
    assert_eq!((position.watermark, position.ahead.is_empty()), (id(20), true));
    operator.skip(id(21), "poison").await.unwrap();
    assert_eq!(stored(&memory).await.position.watermark, id(21));
    let running = Running::start(&memory, Ownership::Exclusive);
    running.until_seen(22..=30).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn g3_a_skip_that_races_with_progress_is_told_and_never_moves_back() {
    let memory = with(1..=30).await;
    with_holes(&memory, Ownership::Exclusive).await;
    let faults = Faults::new();
    faults.next(Operation::Reset, Fault::Delay(Duration::from_secs(1)));
    let slow = Operator::new(subscription(), memory.clone(), faults.wrap(memory.clone())).force(true);
    let skip = tokio::spawn(async move { slow.skip(id(11), "").await });
    Clock::new().sleep(Duration::from_millis(100)).await;
    // Its owner handles it meanwhile, in the epoch that the operator has seen.
    let owner = ConsumerName::new("owner").unwrap();
    let advance = Advance::new(subscription(), Epoch(0), Position::at(id(25)), owner);
    memory.advance(&advance).await.unwrap();
    let error = skip.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.context("stored")), (ErrorKind::Fenced, Some("25-0")));
    assert_eq!(stored(&memory).await.position.watermark, id(25));
}

#[tokio::test(start_paused = true)]
async fn g9_a_skip_keeps_what_is_settled_above_it_and_what_is_remembered_of_attempts() {
    let memory = with(1..=30).await;
    with_holes(&memory, Ownership::Shared).await;
    let settlement = |epoch| {
        let owner = ConsumerName::new("gone").unwrap();
        Settlement::each(subscription(), epoch, owner, vec![id(15)])
    };
    // Its effects are committed, and whoever did it was killed before the ack.
    let tx = memory.begin().await.unwrap();
    memory.commit(tx, &settlement(Epoch(0))).await.unwrap();
    let failed = Attempts { failures: 2, ..Attempts::new(id(21)) };
    let note = NoteAttempts::new(subscription(), Epoch(0), vec![failed.clone()], vec![]);
    memory.note_attempts(&note).await.unwrap();
    let epoch = operator(&memory).skip(id(11), "poison").await.unwrap();
    let mut tx = memory.begin().await.unwrap();
    assert_eq!(memory.settled(&mut tx, &settlement(epoch)).await.unwrap(), [id(15)], "it takes effect once");
    assert_eq!(memory.attempts(&LoadAttempts::all(subscription())).await.unwrap(), [failed]);
    let stored = stored(&memory).await;
    assert_eq!((stored.epoch, stored.reason.as_deref()), (epoch, Some("poison")));
    assert!(stored.position.settles(id(11)) && !stored.paused);
}

#[tokio::test(start_paused = true)]
async fn g1_a_skip_that_was_interrupted_leaves_its_entry_to_the_next_one() {
    for by_operator in [true, false] {
        let memory = with(1..=30).await;
        with_holes(&memory, Ownership::Shared).await;
        let faults = Faults::new();
        faults.next(Operation::Ack, Fault::Before);
        let operator = Operator::new(subscription(), faults.wrap(memory.clone()), memory.clone());
        operator.skip(id(11), "").await.unwrap_err();
        assert_eq!(operator.status().await.unwrap().pending(), 2, "it is not acked yet");
        let mut left = vec![15];
        if by_operator {
            assert_eq!(operator.skip(id(11), "").await.unwrap_err().context("next"), Some("15-0"));
            operator.skip(id(15), "").await.unwrap();
            left.clear();
        }
        let running = Running::start(&memory, Ownership::Shared);
        running.until_seen(left.into_iter().chain(21..=30)).await;
        running.stop().await;
        assert_eq!(stored(&memory).await.position.watermark, id(30));
        assert_eq!(operator.status().await.unwrap().pending(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn g7_an_entry_that_left_the_stream_is_skipped_too() {
    let memory = with(1..=30).await;
    with_holes(&memory, Ownership::Shared).await;
    memory.remove(&Removal::Entries(subscription().stream, vec![id(11)])).await.unwrap();
    operator(&memory).skip(id(11), "it is gone").await.unwrap();
    let running = Running::start(&memory, Ownership::Shared);
    running.until_seen([15].into_iter().chain(21..=30)).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn g7_a_skip_does_not_pass_over_what_is_gone() {
    let memory = with(1..=30).await;
    with_holes(&memory, Ownership::Exclusive).await;
    let trim = Trim::new(subscription().stream, TrimLimit::Below(id(25)));
    memory.trim(&trim).await.unwrap();
    let error = operator(&memory).skip(id(25), "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert_eq!(stored(&memory).await.position.watermark, id(10), "nothing has moved");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_never_began_has_no_next_entry() {
    let memory = with(1..=3).await;
    let error = operator(&memory).skip(id(1), "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
}
