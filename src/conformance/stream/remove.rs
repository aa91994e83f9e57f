//! Removing for good, and closing.

use crate::{
    EntryId, ErrorKind,
    conformance::support::{Streams, Verdict, fails, id, ids},
};

/// Entries go, and only those that were there count.
pub(super) async fn entries(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    assert_eq!(t.remove(&ids([2, 4, 99])).await?, 2);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids([1, 3, 5]));
    assert_eq!(t.remove(&ids([2, 4, 99])).await?, 0, "repeated");
    Ok(())
}

/// A group goes with its pending list; the stream and other groups stay.
pub(super) async fn a_group(t: Streams) -> Verdict {
    let other = t.group("other");
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    other.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 2).await?;
    other.read_group("a", 1).await?;

    assert_eq!(t.remove_group().await?, 1);
    assert_eq!(t.remove_group().await?, 0, "repeated");
    assert_eq!(t.state().await?.group, None);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids(1..=3));
    assert_eq!(other.group_state().await?.pending, 1);

    assert!(t.ensure_at(EntryId::ZERO).await?, "it can be created anew");
    assert_eq!(t.pending("a").await?, [], "nothing is left of the pending list");
    assert_eq!(t.read_group("a", 10).await?, ids(1..=3));
    Ok(())
}

/// A group goes with its consumers' heartbeats.
pub(super) async fn a_group_with_its_heartbeats(t: Streams) -> Verdict {
    use crate::{backend::Beat, conformance::support::LONG};

    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    t.remove_group().await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.beat("a", 2, LONG).await?, Beat::Fresh);
    Ok(())
}

/// A stream goes with its groups.
pub(super) async fn a_stream(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.remove_stream().await?, 1);
    assert_eq!(t.remove_stream().await?, 0, "repeated");
    assert!(t.state().await.is_err());
    fails(t.read_group("a", 1).await, ErrorKind::Missing);
    t.append_at([1]).await?;
    assert_eq!(t.state().await?.group, None, "groups do not come back with the stream");
    Ok(())
}

/// What is not there cannot be removed, which is no error.
pub(super) async fn what_is_missing(t: Streams) -> Verdict {
    assert_eq!(t.remove(&ids([1])).await?, 0);
    assert_eq!(t.remove_group().await?, 0);
    assert_eq!(t.remove_stream().await?, 0);
    t.append_at([1]).await?;
    assert_eq!(t.remove_group().await?, 0);
    Ok(())
}

/// Removing entries does not move the group, nor deliver others twice.
pub(super) async fn entries_before_they_are_delivered(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 1).await?;
    t.remove(&ids([1, 2, 4])).await?;
    assert_eq!(t.read_group("a", 10).await?, ids([3, 5]));
    assert_eq!(t.group_state().await?.last_delivered, id(5));
    Ok(())
}

/// After it was closed, a backend answers with a typed error, and may be closed again.
pub(super) async fn a_closed_backend_says_so(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    t.remove_stream().await?;
    t.backend.close().await;
    t.backend.close().await;
    fails(t.read(EntryId::ZERO, 1).await, ErrorKind::Closed);
    fails(t.append(1).await, ErrorKind::Closed);
    fails(t.ack(&[]).await, ErrorKind::Closed);
    Ok(())
}
