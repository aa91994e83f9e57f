//! Claims: the living keep, the dead give.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    EntryId, Result,
    conformance::support::{LONG, SHORT, Streams, Verdict, each_once, eventually, id, ids, ids_of},
};

/// `1-0` to `n-0`, all delivered to `who`.
async fn delivered(t: &Streams, who: &str, n: u64) -> Result<()> {
    t.append_at(1..=n).await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.read_group(who, 1000).await?, ids(1..=n));
    Ok(())
}

/// As [`delivered`], to a consumer whose heartbeat then ends.
async fn dead(t: &Streams, who: &str, n: u64) -> Result<()> {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat(who, 1, LONG).await?;
    delivered(t, who, n).await?;
    t.leave(who, 1).await?;
    Ok(())
}

/// G13: from a living consumer nothing is claimed, however long its entries are idle.
pub(super) async fn g13_the_living_keep(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    delivered(&t, "a", 3).await?;
    t.beat("b", 2, LONG).await?;
    t.clock.sleep(Duration::from_millis(20)).await;
    assert_eq!(t.claim("b", 10, Duration::ZERO).await?, []);
    let entries = t.pending_after("a", EntryId::ZERO, 10).await?;
    assert_eq!(ids_of(&entries), ids(1..=3));
    assert!(entries.iter().all(|entry| entry.deliveries == 2), "one delivery and this one: {entries:?}");
    Ok(())
}

/// G13: when a heartbeat has run out, entries are claimed, however short they are idle.
pub(super) async fn g13_the_dead_give(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, SHORT).await?;
    delivered(&t, "a", 3).await?;
    t.beat("b", 2, LONG).await?;
    let mut claimed = Vec::new();
    eventually("the entries of a dead consumer are claimed", async || {
        claimed.extend(t.claim("b", 10, LONG).await?);
        Ok(claimed.len() == 3)
    })
    .await?;
    assert_eq!(ids_of(&claimed), ids(1..=3));
    Ok(())
}

/// G13: a consumer claims nothing from itself, also when its own heartbeat is missing or has run out.
pub(super) async fn g13_never_its_own(t: Streams) -> Verdict {
    delivered(&t, "a", 3).await?;
    assert_eq!(t.claim("a", 10, Duration::ZERO).await?, [], "never had a heartbeat");
    t.beat("a", 1, SHORT).await?;
    t.clock.sleep(SHORT * 2).await;
    assert_eq!(t.claim("a", 10, Duration::ZERO).await?, [], "it has run out");
    assert_eq!(t.pending("a").await?, ids(1..=3));
    Ok(())
}

/// A consumer that never kept a heartbeat is judged by idle time: not before it.
pub(super) async fn others_keep_until_idle(t: Streams) -> Verdict {
    delivered(&t, "foreign", 3).await?;
    t.beat("b", 1, LONG).await?;
    assert_eq!(t.claim("b", 10, LONG).await?, []);
    assert_eq!(t.pending("foreign").await?, ids(1..=3));
    Ok(())
}

/// A consumer that never kept a heartbeat is judged by idle time: after it.
pub(super) async fn others_give_when_idle(t: Streams) -> Verdict {
    delivered(&t, "foreign", 3).await?;
    t.beat("b", 1, LONG).await?;
    let mut claimed = Vec::new();
    eventually("idle entries are claimed", async || {
        claimed.extend(t.claim("b", 10, Duration::from_millis(100)).await?);
        Ok(claimed.len() == 3)
    })
    .await?;
    assert_eq!(ids_of(&claimed), ids(1..=3));
    Ok(())
}

/// What was claimed belongs to the claimer, with its fields, and counts as one more delivery.
pub(super) async fn moves_the_entry(t: Streams) -> Verdict {
    dead(&t, "a", 2).await?;
    t.beat("b", 2, LONG).await?;
    let claimed = t.claim("b", 10, LONG).await?;
    assert_eq!(ids_of(&claimed), ids([1, 2]));
    assert!(claimed.iter().all(|entry| entry.deliveries == 2 && entry.fields.is_some()), "{claimed:?}");
    assert_eq!(t.pending("a").await?, []);
    assert_eq!(t.pending("b").await?, ids([1, 2]));
    assert_eq!(t.group_state().await?.pending, 2);
    Ok(())
}

/// What a living consumer has claimed is claimed by nobody else.
pub(super) async fn once(t: Streams) -> Verdict {
    dead(&t, "a", 2).await?;
    t.beat("b", 2, LONG).await?;
    t.beat("c", 3, LONG).await?;
    assert_eq!(t.claim("b", 10, LONG).await?.len(), 2);
    assert_eq!(t.claim("c", 10, Duration::ZERO).await?, []);
    Ok(())
}

/// A consumer that comes back to life before its entries were claimed keeps them.
pub(super) async fn back_to_life(t: Streams) -> Verdict {
    dead(&t, "a", 2).await?;
    t.beat("a", 5, LONG).await?;
    t.beat("b", 2, LONG).await?;
    assert_eq!(t.claim("b", 10, Duration::ZERO).await?, []);
    assert_eq!(t.pending("a").await?, ids([1, 2]));
    Ok(())
}

/// What is acked, or was never delivered, is not claimed.
pub(super) async fn only_what_is_pending(t: Streams) -> Verdict {
    dead(&t, "a", 4).await?;
    t.append_at([5, 6]).await?;
    t.ack(&ids([1, 3])).await?;
    assert_eq!(ids_of(&t.claim("b", 10, LONG).await?), ids([2, 4]));
    assert_eq!(t.read_group("c", 10).await?, ids([5, 6]));
    Ok(())
}

/// G7: an entry that left the stream is claimed without fields, and stays pending, for whomever, until it is acked.
pub(super) async fn g7_deleted_entries_come_without_fields(t: Streams) -> Verdict {
    dead(&t, "a", 3).await?;
    t.remove(&ids([2])).await?;
    t.beat("b", 2, LONG).await?;
    let claimed = t.claim("b", 10, LONG).await?;
    assert_eq!(ids_of(&claimed), ids(1..=3));
    assert_eq!(claimed.iter().map(|e| e.fields.is_some()).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(t.group_state().await?.pending, 3, "still pending");
    assert_eq!(t.ack(&ids([2])).await?.acked, 1);
    assert_eq!(t.group_state().await?.pending, 2);
    Ok(())
}

/// Entries of the living are left alone, also where they left the stream.
pub(super) async fn deleted_entries_of_the_living_stay(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    delivered(&t, "a", 3).await?;
    t.remove(&ids([1, 3])).await?;
    t.beat("b", 2, LONG).await?;
    assert_eq!(t.claim("b", 10, Duration::ZERO).await?, []);
    assert_eq!(t.pending("a").await?, ids(1..=3));
    Ok(())
}

/// The cursor leads through the whole list, one entry at a time.
pub(super) async fn one_at_a_time(t: Streams) -> Verdict {
    dead(&t, "a", 10).await?;
    t.beat("b", 2, LONG).await?;
    assert_eq!(ids_of(&t.claim("b", 1, LONG).await?), ids(1..=10));
    Ok(())
}

/// A claim from a place on leaves out what is before it.
pub(super) async fn from_a_place(t: Streams) -> Verdict {
    dead(&t, "a", 5).await?;
    let claimed = t.claim_once("b", id(4), 10, LONG).await?;
    assert_eq!(ids_of(&claimed.entries), ids([4, 5]));
    assert_eq!(t.claim_once("b", id(99), 10, LONG).await?.entries, []);
    assert_eq!(t.pending("a").await?, ids(1..=3));
    Ok(())
}

/// T-37: many entries of the living do not hide one of the dead behind them.
pub(super) async fn the_living_do_not_hide_the_dead(t: Streams) -> Verdict {
    t.append_at(1..=31).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("alive", 1, LONG).await?;
    t.beat("dead", 2, LONG).await?;
    t.beat("b", 3, LONG).await?;
    assert_eq!(t.read_group("alive", 30).await?, ids(1..=30));
    assert_eq!(t.read_group("dead", 1).await?, ids([31]));
    t.leave("dead", 2).await?;
    assert_eq!(ids_of(&t.claim("b", 1, LONG).await?), ids([31]));
    Ok(())
}

/// Claimers that run side by side share: each entry goes to one of them.
pub(super) async fn claimers_do_not_share(t: Streams) -> Verdict {
    dead(&t, "a", 40).await?;
    let mut tasks = JoinSet::new();
    for n in 0..3 {
        let t = t.clone();
        tasks.spawn(async move {
            let who = format!("c{n}");
            t.beat(&who, n, LONG).await?;
            let mut claimed = Vec::new();
            loop {
                let more = t.claim_once(&who, EntryId::ZERO, 3, LONG).await?.entries;
                if more.is_empty() {
                    break;
                }
                claimed.extend(ids_of(&more));
            }
            assert_eq!(t.pending(&who).await?, claimed);
            Ok::<_, crate::Error>(claimed)
        });
    }
    let mut claimed = Vec::new();
    while let Some(more) = tasks.join_next().await {
        claimed.extend(more.expect("the task does not panic")?);
    }
    each_once(claimed, &ids(1..=40));
    Ok(())
}

/// T-18: a dead consumer is not removed while anything is pending for it, also not when it reads once more.
pub(super) async fn the_dead_lose_nothing(t: Streams) -> Verdict {
    dead(&t, "a", 10).await?;
    t.append_at(11..=60).await?;
    t.beat("b", 2, LONG).await?;
    // The dead one was only slow: it reads on while its entries are claimed.
    let late = async {
        for _ in 0..25 {
            t.read_group("a", 2).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, crate::Error>(())
    };
    let claim = async {
        for _ in 0..25 {
            t.claim("b", 2, LONG).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, crate::Error>(())
    };
    tokio::try_join!(late, claim)?;
    let mut all = t.pending("a").await?;
    all.extend(t.pending("b").await?);
    each_once(all, &ids(1..=60));
    assert_eq!(t.group_state().await?.pending, 60);
    Ok(())
}

/// A dead consumer with nothing pending may come back as if it were new.
pub(super) async fn the_dead_without_entries_go(t: Streams) -> Verdict {
    use crate::backend::Beat;

    dead(&t, "a", 1).await?;
    t.beat("b", 2, LONG).await?;
    t.claim("b", 10, LONG).await?;
    t.claim("b", 10, LONG).await?;
    assert_eq!(t.beat("a", 9, LONG).await?, Beat::Fresh);
    t.append_at([2]).await?;
    assert_eq!(t.read_group("a", 10).await?, ids([2]));
    assert_eq!(t.claim("b", 10, Duration::ZERO).await?, [], "it lives again");
    Ok(())
}

/// With nothing pending there is nothing to claim, and the whole list was seen.
pub(super) async fn nothing_pending(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    let claimed = t.claim_once("b", EntryId::ZERO, 10, Duration::ZERO).await?;
    assert_eq!((claimed.entries.len(), claimed.next), (0, None));
    Ok(())
}
