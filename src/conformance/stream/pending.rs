//! Reading again what is pending.

use crate::{
    EntryId,
    conformance::support::{Streams, Verdict, id, ids, ids_of},
};

/// `1-0` to `n-0`, all delivered to `a`.
async fn delivered(t: &Streams, n: u64) -> crate::Result<()> {
    t.append_at(1..=n).await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.read_group("a", 1000).await?, ids(1..=n));
    Ok(())
}

/// A consumer gets back what is pending for it, in order.
pub(super) async fn comes_back(t: Streams) -> Verdict {
    delivered(&t, 5).await?;
    assert_eq!(t.pending("a").await?, ids(1..=5));
    assert_eq!(t.pending("a").await?, ids(1..=5), "as often as it asks");
    Ok(())
}

/// The id and the limit page through the list.
pub(super) async fn in_pages(t: Streams) -> Verdict {
    delivered(&t, 5).await?;
    t.ack(&ids([2])).await?;
    assert_eq!(ids_of(&t.pending_after("a", EntryId::ZERO, 2).await?), ids([1, 3]));
    assert_eq!(ids_of(&t.pending_after("a", id(3), 2).await?), ids([4, 5]));
    assert_eq!(ids_of(&t.pending_after("a", id(5), 2).await?), []);
    Ok(())
}

/// What is pending for one consumer does not come to another.
pub(super) async fn of_others_stays_with_them(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 2).await?;
    t.read_group("b", 2).await?;
    assert_eq!(t.pending("a").await?, ids([1, 2]));
    assert_eq!(t.pending("b").await?, ids([3, 4]));
    assert_eq!(t.pending("nobody").await?, []);
    Ok(())
}

/// What is acked does not come back.
pub(super) async fn acked_does_not_come_back(t: Streams) -> Verdict {
    delivered(&t, 5).await?;
    t.ack(&ids([1, 3, 5])).await?;
    assert_eq!(t.pending("a").await?, ids([2, 4]));
    t.ack(&ids([2, 4])).await?;
    assert_eq!(t.pending("a").await?, []);
    Ok(())
}

/// The count of deliveries grows each time.
pub(super) async fn counts_deliveries(t: Streams) -> Verdict {
    delivered(&t, 2).await?;
    for count in 2..=4 {
        let entries = t.pending_after("a", EntryId::ZERO, 10).await?;
        let deliveries: Vec<_> = entries.iter().map(|entry| entry.deliveries).collect();
        assert_eq!(deliveries, [count, count]);
    }
    Ok(())
}

/// An entry that left the stream comes back without fields, in its place, until it is acked.
pub(super) async fn deleted_comes_without_fields(t: Streams) -> Verdict {
    delivered(&t, 3).await?;
    t.remove(&ids([2])).await?;
    for _ in 0..2 {
        let entries = t.pending_after("a", EntryId::ZERO, 10).await?;
        assert_eq!(ids_of(&entries), ids(1..=3));
        assert_eq!(entries.iter().map(|e| e.fields.is_some()).collect::<Vec<_>>(), [true, false, true]);
        assert!(entries[1].deliveries >= 1);
    }
    assert_eq!(t.ack(&ids([2])).await?.acked, 1);
    assert_eq!(t.pending("a").await?, ids([1, 3]));
    Ok(())
}

/// Above the greatest of all ids nothing is pending; above all, no new entry is delivered.
pub(super) async fn after_the_last_id_is_nothing(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 2).await?;
    assert_eq!(t.pending_after("a", EntryId::MAX, 10).await?, []);
    let group = t.group_state().await?;
    assert_eq!((group.pending, group.last_delivered), (2, id(2)));
    Ok(())
}

/// Reading what is pending delivers no new entry.
pub(super) async fn delivers_nothing_new(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.pending("a").await?, []);
    t.read_group("a", 2).await?;
    assert_eq!(t.pending("a").await?, ids([1, 2]));
    assert_eq!(t.group_state().await?.last_delivered, id(2));
    Ok(())
}
