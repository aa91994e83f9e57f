//! Trimming.

use crate::{
    EntryId,
    backend::{Trim, TrimLimit},
    conformance::support::{Streams, Verdict, id, ids},
};

async fn trim(t: &Streams, limit: TrimLimit, keep_from: Option<EntryId>) -> crate::Result<u64> {
    t.backend.trim(&Trim::new(t.subscription.stream.clone(), limit).keep_from(keep_from)).await
}

/// A length keeps the newest.
pub(super) async fn to_a_length(t: Streams) -> Verdict {
    t.append_at(1..=10).await?;
    assert_eq!(trim(&t, TrimLimit::Len(3), None).await?, 7);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids(8..=10));
    Ok(())
}

/// An id goes with nothing: only what is below it does.
pub(super) async fn below_an_id(t: Streams) -> Verdict {
    t.append_at(1..=10).await?;
    assert_eq!(trim(&t, TrimLimit::Below(id(8)), None).await?, 7);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids(8..=10));
    Ok(())
}

/// The limit is numeric and full: `9-0` is below `10-0`, and the sequence number counts.
pub(super) async fn ids_are_not_compared_as_text(t: Streams) -> Verdict {
    t.append_at([9, 10]).await?;
    assert_eq!(trim(&t, TrimLimit::Below(EntryId::new(9, 1)), None).await?, 1);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids([10]));
    Ok(())
}

/// Whatever the limit says, entries from `keep_from` on stay.
pub(super) async fn keep_from_wins(t: Streams) -> Verdict {
    t.append_at(1..=10).await?;
    assert_eq!(trim(&t, TrimLimit::Len(0), Some(id(4))).await?, 3);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids(4..=10));
    assert_eq!(trim(&t, TrimLimit::Below(EntryId::MAX), Some(id(6))).await?, 2);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids(6..=10));
    Ok(())
}

/// Where the limit keeps more than `keep_from` asks for, the limit holds: trimming takes no more than it was told to.
pub(super) async fn keep_from_adds_nothing(t: Streams) -> Verdict {
    t.append_at(1..=10).await?;
    assert_eq!(trim(&t, TrimLimit::Len(8), Some(id(6))).await?, 2);
    assert_eq!(trim(&t, TrimLimit::Below(id(5)), Some(id(9))).await?, 2);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids(5..=10));
    Ok(())
}

/// `keep_from` need not be the id of an entry.
pub(super) async fn keep_from_between_entries(t: Streams) -> Verdict {
    t.append_at([10, 20, 30]).await?;
    assert_eq!(trim(&t, TrimLimit::Len(0), Some(id(15))).await?, 1);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids([20, 30]));
    Ok(())
}

/// Nothing goes where nothing is over the limit, however often it is asked.
pub(super) async fn nothing_over_the_limit(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    for limit in [TrimLimit::Len(5), TrimLimit::Len(u64::MAX >> 1), TrimLimit::Below(id(1))] {
        assert_eq!(trim(&t, limit, None).await?, 0, "{limit:?}");
    }
    assert_eq!(trim(&t, TrimLimit::Len(2), None).await?, 3);
    assert_eq!(trim(&t, TrimLimit::Len(2), None).await?, 0, "repeated");
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids(4..=5));
    Ok(())
}

/// An approximate trim may keep more, never less.
pub(super) async fn approximate_keeps_at_least(t: Streams) -> Verdict {
    t.append_at(1..=50).await?;
    let trim = Trim::new(t.subscription.stream.clone(), TrimLimit::Len(10)).approximate();
    let gone = t.backend.trim(&trim.clone().keep_from(Some(id(21)))).await?;
    let left = t.read(EntryId::ZERO, 100).await?;
    assert_eq!(gone + left.len() as u64, 50);
    assert!(left.ends_with(&ids(21..=50)), "{left:?}");
    t.backend.trim(&trim).await?;
    assert!(t.read(EntryId::ZERO, 100).await?.ends_with(&ids(41..=50)));
    Ok(())
}

/// A stream that was trimmed to nothing is still there.
pub(super) async fn to_nothing(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    assert_eq!(trim(&t, TrimLimit::Len(0), None).await?, 3);
    let state = t.state().await?;
    assert_eq!((state.len, state.first_id, state.last_id), (0, None, id(3)));
    Ok(())
}

/// A missing stream has nothing to trim, and is not created.
pub(super) async fn a_missing_stream(t: Streams) -> Verdict {
    assert_eq!(trim(&t, TrimLimit::Len(0), None).await?, 0);
    assert_eq!(trim(&t, TrimLimit::Below(id(5)), Some(id(3))).await?, 0);
    assert!(t.state().await.is_err(), "it was created");
    Ok(())
}
