//! The position that a transaction stores.

use crate::{
    Epoch, ErrorKind, Incarnation, Position, SettledAhead,
    conformance::{
        effects::Transactions,
        support::{Verdict, consumer, fails, id, ids},
    },
};

/// All of it is stored, with who did it.
pub(super) async fn is_stored(t: Transactions) -> Verdict {
    let incarnation = Incarnation::new("life-1")?;
    let position = Position::at(id(3))
        .with_ordinal(Some(3))
        .with_incarnation(Some(incarnation))
        .with_ahead(SettledAhead::new(id(9), ids([5, 7])));
    t.done(&t.each(Epoch(0), &ids([1, 2, 3])).up_to(position.clone())).await?;
    let Some(stored) = t.checkpoints.backend.load(&t.checkpoints.subscription).await? else {
        panic!("it is stored")
    };
    assert_eq!(stored.position, position);
    assert_eq!(stored.owner, Some(consumer("owner")));
    Ok(())
}

/// What it does not know is kept, as by an advance.
pub(super) async fn keeps_what_it_does_not_know(t: Transactions) -> Verdict {
    let incarnation = Some(Incarnation::new("life-1")?);
    let first = Position::at(id(2)).with_ordinal(Some(2)).with_incarnation(incarnation.clone());
    t.done(&t.each(Epoch(0), &ids([1, 2])).up_to(first)).await?;
    t.done(&t.up_to(Epoch(0), &ids([3, 4]))).await?;
    assert_eq!(t.checkpoints.position().await?, Some(Position::at(id(4)).with_incarnation(incarnation)));
    Ok(())
}

/// Entries that were settled one by one, before the subscription had an owner, are settled for it as well.
pub(super) async fn knows_what_was_settled_by_itself(t: Transactions) -> Verdict {
    t.done(&t.each(Epoch(0), &ids([2, 5]))).await?;
    t.refused(&t.up_to(Epoch(0), &ids(1..=3)), &ids([2])).await?;
    assert_eq!(t.checkpoints.watermark().await?, None);
    t.done(&t.up_to(Epoch(0), &ids([1]))).await?;
    t.refused(&t.up_to(Epoch(0), &ids(3..=5)), &ids([5])).await
}

/// G18: with no entry, with entries out of order, or with a position that does not settle all of them nothing takes place.
pub(super) async fn g18_one_that_leaves_an_entry_unsettled_is_invalid(t: Transactions) -> Verdict {
    let [nothing, falling, twice] = [ids([]), ids([2, 1]), ids([1, 1])].map(|ids| t.each(Epoch(0), &ids));
    let below = t.each(Epoch(0), &ids([5])).up_to(Position::at(id(3)));
    let in_part = t.each(Epoch(0), &ids([4, 5])).up_to(Position::at(id(4)));
    let hole = Position::at(id(3)).with_ahead(SettledAhead::new(id(9), ids([5])));
    let hole = t.each(Epoch(0), &ids([5])).up_to(hole);
    for request in [nothing, falling, twice, below, in_part, hole] {
        let mut tx = t.begin().await?;
        t.write(&mut tx, &ids([5])).await?;
        fails(t.commit(tx, &request).await, ErrorKind::Invalid);
    }
    assert_eq!((t.rows().await?, t.checkpoints.watermark().await?), (vec![], None));
    t.done(&t.each(Epoch(0), &ids([5]))).await
}
