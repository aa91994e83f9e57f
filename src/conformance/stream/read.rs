//! Reading outside of any group.

use std::time::Duration;

use crate::{
    Entry, EntryId, Result,
    backend::{Read, Trim, TrimLimit},
    conformance::support::{LONG, SOON, Streams, Verdict, id, ids, soon},
};

fn blocked(t: &Streams, after: EntryId) -> Read {
    Read::new(t.subscription.stream.clone(), after, 10).block(LONG)
}

/// A blocked read may return early and empty, so it is repeated.
async fn until_something(t: &Streams, after: EntryId) -> Result<Vec<EntryId>> {
    loop {
        let entries = t.backend.read(&blocked(t, after)).await?;
        if !entries.is_empty() {
            return Ok(entries.iter().map(|entry: &Entry| entry.id).collect());
        }
    }
}

/// Only entries above the id, in order.
pub(super) async fn after_an_id(t: Streams) -> Verdict {
    t.append_at([1, 3, 5, 10]).await?;
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids([1, 3, 5, 10]));
    assert_eq!(t.read(id(3), 100).await?, ids([5, 10]), "an entry's id");
    assert_eq!(t.read(EntryId::new(3, 1), 100).await?, ids([5, 10]), "between two");
    assert_eq!(t.read(id(9), 100).await?, ids([10]), "numeric");
    assert_eq!(t.read(id(10), 100).await?, []);
    assert_eq!(t.read(EntryId::MAX, 100).await?, []);
    Ok(())
}

/// At most as many as asked for.
pub(super) async fn a_limit(t: Streams) -> Verdict {
    t.append_at(1..=10).await?;
    assert_eq!(t.read(EntryId::ZERO, 1).await?, ids([1]));
    assert_eq!(t.read(id(4), 3).await?, ids(5..=7));
    assert_eq!(t.read(EntryId::ZERO, 1_000_000).await?, ids(1..=10));
    Ok(())
}

/// A missing stream has no entries, and is not created.
pub(super) async fn a_missing_stream(t: Streams) -> Verdict {
    assert_eq!(t.read(EntryId::ZERO, 10).await?, []);
    assert!(t.state().await.is_err(), "it was created");
    Ok(())
}

/// Entries that are gone are left out.
pub(super) async fn over_what_is_gone(t: Streams) -> Verdict {
    t.append_at(1..=10).await?;
    t.remove(&ids([5, 7])).await?;
    t.backend.trim(&Trim::new(t.subscription.stream.clone(), TrimLimit::Below(id(4)))).await?;
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids([4, 6, 8, 9, 10]));
    assert_eq!(t.read(id(4), 2).await?, ids([6, 8]));
    Ok(())
}

/// Reading changes nothing, not even for a group.
pub(super) async fn changes_nothing(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    let before = t.state().await?;
    t.read(EntryId::ZERO, 10).await?;
    assert_eq!(t.state().await?, before);
    Ok(())
}

/// A read that may wait does not, where there is something.
pub(super) async fn a_blocked_read_takes_what_is_there(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    let entries = soon("a read of what is there", t.backend.read(&blocked(&t, id(1)))).await?;
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids([2, 3]));
    Ok(())
}

/// A blocked read wakes when an entry comes.
pub(super) async fn a_blocked_read_wakes(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    let append = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.append_at([2]).await
    };
    let (read, appended) =
        soon("an append to a blocked reader", async { tokio::join!(until_something(&t, id(1)), append) })
            .await;
    appended?;
    assert_eq!(read?, ids([2]));
    Ok(())
}

/// A read that is blocked on a missing stream wakes when the stream comes.
pub(super) async fn a_blocked_read_wakes_with_the_stream(t: Streams) -> Verdict {
    let append = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.append_at([2]).await
    };
    let (read, appended) = soon("the first append to a blocked reader", async {
        tokio::join!(until_something(&t, EntryId::ZERO), append)
    })
    .await;
    appended?;
    assert_eq!(read?, ids([2]));
    Ok(())
}

/// All that are blocked on a stream wake.
pub(super) async fn all_blocked_readers_wake(t: Streams) -> Verdict {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let t = t.clone();
        tasks.spawn(async move { until_something(&t, EntryId::ZERO).await });
    }
    t.clock.sleep(Duration::from_millis(50)).await;
    t.append_at([1]).await?;
    while let Some(read) = soon("an append to five blocked readers", tasks.join_next()).await {
        assert_eq!(read.expect("the task does not panic")?, ids([1]));
    }
    Ok(())
}

/// A blocked read ends, empty, when its time is over.
pub(super) async fn a_blocked_read_ends(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    let read = Read::new(t.subscription.stream.clone(), id(1), 10).block(Duration::from_millis(100));
    let before = t.clock.elapsed();
    assert_eq!(soon("a read of 100 ms", t.backend.read(&read)).await?, []);
    assert!(t.clock.elapsed() - before < SOON);
    Ok(())
}

/// While a read is blocked, everything else goes on.
pub(super) async fn a_blocked_read_holds_up_nobody(t: Streams) -> Verdict {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let other = Streams { subscription: crate::conformance::support::unique("blocked"), ..t.clone() };
        tasks.spawn(async move { other.backend.read(&blocked(&other, EntryId::ZERO)).await });
    }
    t.clock.sleep(Duration::from_millis(50)).await;
    soon("calls beside blocked reads", async {
        t.append_at(1..=3).await?;
        t.ensure_at(EntryId::ZERO).await?;
        assert_eq!(t.read(EntryId::ZERO, 10).await?, ids(1..=3));
        assert_eq!(t.read_group("a", 10).await?, ids(1..=3));
        t.ack(&ids(1..=3)).await?;
        t.state().await
    })
    .await?;
    tasks.shutdown().await;
    Ok(())
}

/// After a blocked read was dropped, the backend works, and the next read sees everything.
pub(super) async fn a_dropped_read_disturbs_nothing(t: Streams) -> Verdict {
    for n in 1..=3 {
        let after = EntryId::new(n, 0).prev().unwrap_or(EntryId::ZERO);
        let read = blocked(&t, after);
        let dropped = tokio::time::timeout(Duration::from_millis(30), t.backend.read(&read));
        if let Ok(read) = dropped.await {
            assert_eq!(read?, [], "there is nothing to read");
        }
        soon("an append after a dropped read", t.append_at([n])).await?;
    }
    assert_eq!(soon("a read after dropped reads", t.read(EntryId::ZERO, 10)).await?, ids(1..=3));
    Ok(())
}
