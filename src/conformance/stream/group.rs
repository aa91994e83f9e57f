//! Groups: creating them and reading new entries.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    Delivery, EntryId, ErrorKind, Position, Result,
    conformance::support::{LONG, Streams, Verdict, each_once, eventually, fails, id, ids, soon},
};

/// A group is created once.
pub(super) async fn is_created_once(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    assert!(t.ensure_at(EntryId::ZERO).await?);
    assert!(!t.ensure_at(EntryId::ZERO).await?);
    Ok(())
}

/// A group brings its stream with it, empty.
pub(super) async fn creates_the_stream(t: Streams) -> Verdict {
    assert!(t.ensure_at(EntryId::ZERO).await?);
    let state = t.state().await?;
    assert_eq!((state.len, state.first_id, state.last_id), (0, None, EntryId::ZERO));
    assert_eq!(t.read_group("a", 1).await?, []);
    Ok(())
}

/// A new group delivers what is above its position, and nothing at or below it.
pub(super) async fn starts_at_its_position(t: Streams) -> Verdict {
    t.append_at([1, 2, 3, 4]).await?;
    t.ensure_at(id(2)).await?;
    assert_eq!(t.group_state().await?.last_delivered, id(2));
    assert_eq!(t.read_group("a", 10).await?, ids([3, 4]));
    Ok(())
}

/// A group moves up to a position ahead of it.
pub(super) async fn moves_forward(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(id(1)).await?;
    assert!(!t.ensure_at(id(3)).await?, "it was there");
    assert_eq!(t.group_state().await?.last_delivered, id(3));
    assert_eq!(t.read_group("a", 10).await?, ids([4, 5]));
    Ok(())
}

/// A group never moves back.
pub(super) async fn never_moves_back(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 4).await?;
    t.ensure_at(id(2)).await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.group_state().await?.last_delivered, id(4));
    assert_eq!(t.read_group("a", 10).await?, ids([5]));
    Ok(())
}

/// Moving a group drops nothing that is pending, also below the new position.
pub(super) async fn keeps_what_is_pending(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 2).await?;
    t.ensure_at(id(4)).await?;
    assert_eq!(t.pending("a").await?, ids([1, 2]));
    assert_eq!(t.read_group("a", 10).await?, ids([5]));
    Ok(())
}

/// Many that ensure a group at once create it once, and it stands at the highest position.
pub(super) async fn is_created_once_by_many(t: Streams) -> Verdict {
    t.append_at(1..=20).await?;
    let mut tasks = JoinSet::new();
    for n in 1..=10 {
        let t = t.clone();
        tasks.spawn(async move { t.ensure_at(id(n)).await });
    }
    let mut created = 0;
    while let Some(result) = tasks.join_next().await {
        created += u32::from(result.expect("the task does not panic")?);
    }
    assert_eq!(created, 1);
    assert_eq!(t.group_state().await?.last_delivered, id(10));
    Ok(())
}

/// The ordinal that the caller knows becomes the group's.
pub(super) async fn takes_the_ordinal(t: Streams) -> Verdict {
    t.needs_counts()?;
    t.append_at(1..=5).await?;
    t.ensure(&Position::at(id(3)).with_ordinal(Some(3))).await?;
    assert_eq!(t.group_state().await?.entries_read, Some(3));
    t.read_group("a", 1).await?;
    assert_eq!(t.group_state().await?.entries_read, Some(4));
    Ok(())
}

/// A group may stand at an id that no entry has yet.
pub(super) async fn may_stand_in_the_future(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    t.ensure_at(id(5)).await?;
    t.append_at([4, 5, 6]).await?;
    assert_eq!(t.read_group("a", 10).await?, ids([6]));
    Ok(())
}

/// Each group sees every entry.
pub(super) async fn groups_do_not_share(t: Streams) -> Verdict {
    let other = t.group("other");
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    other.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.read_group("a", 10).await?, ids(1..=3));
    t.ack(&ids(1..=3)).await?;
    assert_eq!(other.read_group("a", 10).await?, ids(1..=3));
    assert_eq!(other.group_state().await?.pending, 3);
    Ok(())
}

/// New entries come in order, once, and for the first time.
pub(super) async fn delivers_in_order(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    let first = t.backend.read_group(&t.reading("a", 3)).await?;
    assert_eq!(first.iter().map(Delivery::id).collect::<Vec<_>>(), ids(1..=3));
    assert!(first.iter().all(|d| d.deliveries == 1 && d.attempt == 1 && !d.is_redelivery()), "{first:?}");
    assert_eq!(t.read_group("a", 3).await?, ids([4, 5]));
    assert_eq!(t.read_group("a", 3).await?, []);
    Ok(())
}

/// No entry goes to two consumers of a group.
pub(super) async fn consumers_do_not_share(t: Streams) -> Verdict {
    t.append_at(1..=100).await?;
    t.ensure_at(EntryId::ZERO).await?;
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let t = t.clone();
        tasks.spawn(async move {
            let (who, mut got) = (format!("c{n}"), Vec::new());
            loop {
                let read = t.read_group(&who, 3).await?;
                if read.is_empty() {
                    assert_eq!(t.pending(&who).await?, got, "what was delivered is pending for its consumer");
                    return Ok::<_, crate::Error>(got);
                }
                got.extend(read);
            }
        });
    }
    let mut got = Vec::new();
    while let Some(read) = tasks.join_next().await {
        got.extend(read.expect("the task does not panic")?);
    }
    each_once(got, &ids(1..=100));
    Ok(())
}

/// Without the group or the stream there is nothing to read, which is an error.
pub(super) async fn a_missing_one_is_an_error(t: Streams) -> Verdict {
    fails(t.read_group("a", 1).await, ErrorKind::Missing);
    fails(t.pending("a").await, ErrorKind::Missing);
    fails(t.claim("a", 1, LONG).await, ErrorKind::Missing);
    t.append_at([1]).await?;
    fails(t.read_group("a", 1).await, ErrorKind::Missing);
    fails(t.backend.read_group(&t.reading("a", 1).block(LONG)).await, ErrorKind::Missing);
    fails(t.pending("a").await, ErrorKind::Missing);
    fails(t.claim("a", 1, LONG).await, ErrorKind::Missing);
    Ok(())
}

/// Reads until there is something; a blocked read may return early and empty.
async fn until_something(t: &Streams, who: &str, limit: usize) -> Result<Vec<EntryId>> {
    loop {
        let deliveries = t.backend.read_group(&t.reading(who, limit).block(LONG)).await?;
        if !deliveries.is_empty() {
            return Ok(deliveries.iter().map(Delivery::id).collect());
        }
    }
}

/// A blocked read wakes when an entry comes.
pub(super) async fn a_blocked_read_wakes(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    let append = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.append_at([1]).await
    };
    let (read, appended) =
        soon("an append to a blocked reader", async { tokio::join!(until_something(&t, "a", 10), append) })
            .await;
    appended?;
    assert_eq!(read?, ids([1]));
    assert_eq!(t.pending("a").await?, ids([1]));
    Ok(())
}

/// A blocked read ends, empty, when its time is over.
pub(super) async fn a_blocked_read_ends(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    let read = t.reading("a", 1).block(Duration::from_millis(100));
    assert_eq!(soon("a read of 100 ms", t.backend.read_group(&read)).await?, []);
    Ok(())
}

/// Of many that are blocked, each gets entries of its own.
pub(super) async fn blocked_readers_do_not_share(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let t = t.clone();
        tasks.spawn(async move { until_something(&t, &format!("c{n}"), 1).await });
    }
    t.clock.sleep(Duration::from_millis(50)).await;
    t.append_at(1..=4).await?;
    let mut got = Vec::new();
    while let Some(read) = soon("an append to four blocked readers", tasks.join_next()).await {
        got.extend(read.expect("the task does not panic")?);
    }
    each_once(got, &ids(1..=4));
    Ok(())
}

/// A reader that is blocked on a group learns that the group went.
pub(super) async fn a_blocked_read_learns_that_the_group_went(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    let remove = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.remove_group().await
    };
    let (read, removed) =
        soon("the end of a group", async { tokio::join!(until_something(&t, "a", 1), remove) }).await;
    assert_eq!(removed?, 1);
    fails(read, ErrorKind::Missing);
    Ok(())
}

/// A reader that is blocked on a group learns that the stream went.
pub(super) async fn a_blocked_read_learns_that_the_stream_went(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    let remove = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.remove_stream().await
    };
    let (read, removed) =
        soon("the end of a stream", async { tokio::join!(until_something(&t, "a", 1), remove) }).await;
    assert_eq!(removed?, 1);
    fails(read, ErrorKind::Missing);
    Ok(())
}

/// A read that was dropped has taken nothing that its consumer's pending list does not tell.
pub(super) async fn a_dropped_read_loses_nothing(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    let mut got = Vec::new();
    for n in 1..=10 {
        let read = t.reading("dropped", 1).block(LONG);
        let dropped = tokio::time::timeout(Duration::from_millis(n), t.backend.read_group(&read));
        // Some are dropped before the append, some with it on the way.
        let (_, appended) = tokio::join!(dropped, async {
            t.clock.sleep(Duration::from_millis(5)).await;
            t.append_at([n]).await
        });
        appended?;
        got.extend(soon("a read beside a dropped one", t.read_group("other", 10)).await?);
    }
    // A server may hand entries to a reader that it takes for alive for an instant longer.
    eventually("every entry is with somebody", async || {
        got.extend(t.read_group("other", 10).await?);
        Ok(got.len() + t.pending("dropped").await?.len() == 10)
    })
    .await?;
    got.extend(t.pending("dropped").await?);
    each_once(got, &ids(1..=10));
    Ok(())
}
