//! An entry is settled once.

use crate::{
    EntryId, Epoch, GroupName, Position, SettledAhead, StreamName, Subscription,
    conformance::{
        effects::Transactions,
        support::{Verdict, id, ids},
    },
};

/// G9: each by itself: the second time it is told which were settled, and nothing takes place.
pub(super) async fn g9_each_by_itself(t: Transactions) -> Verdict {
    t.done(&t.each(Epoch(0), &ids([3]))).await?;
    t.refused(&t.each(Epoch(0), &ids([3])), &ids([3])).await?;
    t.done(&t.each(Epoch(0), &ids([1, 2]))).await?;
    t.refused(&t.each(Epoch(0), &ids([1, 2, 3])), &ids([1, 2, 3])).await?;
    assert_eq!(t.rows().await?, ids([1, 2, 3]));
    Ok(())
}

/// G9: with a position.
pub(super) async fn g9_with_a_position(t: Transactions) -> Verdict {
    let settlement = t.up_to(Epoch(0), &ids([1, 2]));
    t.done(&settlement).await?;
    t.refused(&settlement, &ids([1, 2])).await?;
    t.refused(&t.up_to(Epoch(0), &ids([2, 3])), &ids([2])).await?;
    assert_eq!(t.checkpoints.watermark().await?, Some(id(2)));
    t.done(&t.up_to(Epoch(0), &ids([3]))).await
}

/// G9: a batch with one settled entry settles none, and tells exactly that one.
pub(super) async fn g9_a_batch_is_whole(t: Transactions) -> Verdict {
    t.done(&t.each(Epoch(0), &ids([5]))).await?;
    t.refused(&t.each(Epoch(0), &ids(1..=9)), &ids([5])).await?;
    let rest = t.each(Epoch(0), &ids([1, 2, 3, 4, 6, 7, 8, 9]));
    assert_eq!(t.settled(&rest).await?, [], "the others are as they were");
    t.done(&rest).await?;
    assert_eq!(t.rows().await?, ids(1..=9));
    Ok(())
}

/// What an advance has passed is settled, and stays so.
pub(super) async fn at_or_below_the_watermark(t: Transactions) -> Verdict {
    t.done(&t.each(Epoch(0), &ids([2, 4, 6]))).await?;
    t.checkpoints.advance_to(Epoch(0), 4).await?;
    for ms in 1..=4 {
        t.refused(&t.each(Epoch(0), &ids([ms])), &ids([ms])).await?;
    }
    t.refused(&t.each(Epoch(0), &ids(1..=7)), &ids([1, 2, 3, 4, 6])).await?;
    t.done(&t.each(Epoch(0), &ids([5, 7]))).await
}

/// What the checkpoint has settled ahead is settled, holes are not.
pub(super) async fn settled_ahead(t: Transactions) -> Verdict {
    let ahead = SettledAhead::new(id(9), ids([4, 7]));
    t.checkpoints.advance(Epoch(0), &Position::at(id(3)).with_ahead(ahead)).await?;
    let all = t.each(Epoch(0), &ids(1..=11));
    assert_eq!(t.settled(&all).await?, ids([1, 2, 3, 5, 6, 8, 9]));
    t.done(&t.each(Epoch(0), &ids([4, 10]))).await?;
    t.refused(&all, &ids([1, 2, 3, 4, 5, 6, 8, 9, 10])).await?;
    t.done(&t.each(Epoch(0), &ids([7, 11]))).await
}

/// Ids are numbers of 64 bits, twice, and are not compared as text.
pub(super) async fn up_to_the_end_of_u64(t: Transactions) -> Verdict {
    let high = u64::MAX / 2;
    let mut all = ids([9, 10, high, high + 1, high + 2, u64::MAX]);
    all.insert(2, EntryId::new(10, high + 1));
    all.insert(3, EntryId::new(10, u64::MAX));
    all.push(EntryId::MAX);
    for settled in &all {
        t.done(&t.each(Epoch(0), &[*settled])).await?;
    }
    assert_eq!(t.rows().await?, all);
    t.refused(&t.each(Epoch(0), &all), &all).await?;
    t.checkpoints.advance(Epoch(0), &Position::at(id(high))).await?;
    t.refused(&t.each(Epoch(0), &all), &all).await?;
    t.checkpoints.advance(Epoch(0), &Position::at(EntryId::MAX)).await?;
    t.refused(&t.each(Epoch(0), &all), &all).await
}

/// More than a statement may have parameters.
pub(super) async fn a_large_batch(t: Transactions) -> Verdict {
    let all = ids(1..=3000);
    t.done(&t.each(Epoch(0), &ids((1..=3000).step_by(2)))).await?;
    assert_eq!(t.settled(&t.each(Epoch(0), &all)).await?, ids((1..=3000).step_by(2)));
    t.done(&t.each(Epoch(0), &ids((2..=3000).step_by(2)))).await?;
    assert_eq!(t.rows().await?, all);
    Ok(())
}

/// The same ids in another group, or in another stream, are other entries.
pub(super) async fn subscriptions_do_not_share(t: Transactions) -> Verdict {
    let Subscription { stream, group } = t.checkpoints.subscription.clone();
    let other_group = GroupName::new("g2").expect("the names in the cases are valid");
    let other_stream = StreamName::new(format!("{stream}:2")).expect("the names in the cases are valid");
    let all = [
        t.clone(),
        t.of(Subscription { stream: stream.clone(), group: other_group }),
        t.of(Subscription { stream: other_stream, group }),
    ];
    for t in &all {
        t.done(&t.each(Epoch(0), &ids([1, 3]))).await?;
    }
    for (i, t) in all.iter().enumerate() {
        t.refused(&t.each(Epoch(0), &ids([1])), &ids([1])).await?;
        t.checkpoints.advance_to(Epoch(0), 2 + i as u64).await?;
    }
    let settled = [vec![1, 2, 3], vec![1, 2, 3], vec![1, 2, 3, 4]].map(ids);
    for (t, settled) in all.iter().zip(settled) {
        assert_eq!(t.settled(&t.each(Epoch(0), &ids(1..=5))).await?, settled);
    }
    Ok(())
}
