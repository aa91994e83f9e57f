//! Heartbeats, and leaving.

use crate::{
    EntryId, ErrorKind,
    backend::{Beat, Inspect},
    conformance::support::{LONG, SHORT, Streams, Verdict, eventually, fails, ids, ids_of},
};

/// Whether the process may use the name now; if so, for long.
async fn gets_the_name(t: &Streams, who: &str, token: u64) -> crate::Result<bool> {
    match t.beat(who, token, LONG).await {
        Ok(beat) => {
            assert_eq!(beat, Beat::Fresh, "nobody may take the name over unnoticed");
            Ok(true)
        }
        Err(busy) if busy.kind() == ErrorKind::Busy => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first heartbeat is fresh; those after it, while it stands, are unbroken.
pub(super) async fn first_fresh_then_unbroken(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Fresh);
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Unbroken);
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Unbroken);
    Ok(())
}

/// G13: a second live process under one name is refused, which does not disturb the first.
pub(super) async fn g13_a_second_process_is_refused(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    fails(t.beat("a", 2, LONG).await, ErrorKind::Busy);
    fails(t.beat("a", u64::MAX, SHORT).await, ErrorKind::Busy);
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Unbroken);
    Ok(())
}

/// Names are told apart, and so are groups.
pub(super) async fn others_are_not_concerned(t: Streams) -> Verdict {
    let other = t.group("other");
    t.ensure_at(EntryId::ZERO).await?;
    other.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    assert_eq!(t.beat("b", 2, LONG).await?, Beat::Fresh);
    assert_eq!(t.beat("A", 3, LONG).await?, Beat::Fresh);
    assert_eq!(other.beat("a", 4, LONG).await?, Beat::Fresh);
    Ok(())
}

/// When the heartbeat has run out, another process may use the name; the first is then the second.
pub(super) async fn frees_the_name_when_it_runs_out(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, SHORT).await?;
    eventually("a heartbeat runs out", async || gets_the_name(&t, "a", 2).await).await?;
    fails(t.beat("a", 1, LONG).await, ErrorKind::Busy);
    Ok(())
}

/// A process whose heartbeat has run out learns it.
pub(super) async fn a_gap_is_told(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, SHORT).await?;
    t.clock.sleep(SHORT * 2).await;
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Fresh);
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Unbroken);
    Ok(())
}

/// A heartbeat lengthens the one before it.
pub(super) async fn lengthens(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, SHORT).await?;
    t.beat("a", 1, LONG).await?;
    t.clock.sleep(SHORT * 2).await;
    fails(t.beat("a", 2, LONG).await, ErrorKind::Busy);
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Unbroken);
    Ok(())
}

/// Any token is as good as another.
pub(super) async fn tokens_are_whole(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    // As floating-point numbers these would be equal.
    t.beat("a", u64::MAX, LONG).await?;
    fails(t.beat("a", u64::MAX - 1, LONG).await, ErrorKind::Busy);
    assert_eq!(t.beat("a", u64::MAX, LONG).await?, Beat::Unbroken);
    assert_eq!(t.beat("b", 0, LONG).await?, Beat::Fresh);
    Ok(())
}

/// Who leaves frees the name at once.
pub(super) async fn leaving_frees_the_name(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    assert_eq!(t.leave("a", 1).await?, 0);
    assert_eq!(t.beat("a", 2, LONG).await?, Beat::Fresh);
    Ok(())
}

/// Who comes back after it left is fresh.
pub(super) async fn coming_back_is_fresh(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    t.leave("a", 1).await?;
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Fresh);
    Ok(())
}

/// Who leaves with pending entries says how many, loses none, and others may claim them at once.
pub(super) async fn leaving_gives_what_is_pending(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    t.read_group("a", 3).await?;
    t.ack(&ids([2])).await?;
    assert_eq!(t.leave("a", 1).await?, 2);
    assert_eq!(t.group_state().await?.pending, 2);
    assert_eq!(ids_of(&t.claim("b", 10, LONG).await?), ids([1, 3]), "whatever their idle time");
    Ok(())
}

/// A process cannot leave for another one that has the name now.
pub(super) async fn leaving_for_another_does_nothing(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.beat("a", 1, LONG).await?;
    t.read_group("a", 1).await?;
    t.leave("a", 2).await?;
    fails(t.beat("a", 2, LONG).await, ErrorKind::Busy);
    assert_eq!(t.beat("a", 1, LONG).await?, Beat::Unbroken);
    t.beat("b", 3, LONG).await?;
    assert_eq!(t.claim("b", 10, LONG).await?, [], "it still lives");
    assert_eq!(t.pending("a").await?, ids([1]));
    Ok(())
}

/// Leaving may be repeated, also where the group, the stream or the consumer never was.
pub(super) async fn leaving_what_is_missing(t: Streams) -> Verdict {
    assert_eq!(t.leave("a", 1).await?, 0, "no stream");
    assert!(t.state().await.is_err(), "it was created");
    t.append_at([1]).await?;
    assert_eq!(t.leave("a", 1).await?, 0, "no group");
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.leave("a", 1).await?, 0, "no consumer");
    t.beat("a", 1, LONG).await?;
    assert_eq!((t.leave("a", 1).await?, t.leave("a", 1).await?), (0, 0), "repeated");
    Ok(())
}

/// The group tells how many of its consumers live, for whoever must not disturb them.
pub(super) async fn the_living_are_counted(t: Streams) -> Verdict {
    let alive = async |t: &Streams| {
        let inspect = Inspect::subscription(&t.subscription).count_alive(true);
        let state = t.backend.inspect(&inspect).await?;
        let alive = state.and_then(|state| state.group).and_then(|group| group.consumers_alive);
        Ok::<_, crate::Error>(alive.expect("it was asked for"))
    };
    let other = t.group("other");
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    other.ensure_at(EntryId::ZERO).await?;
    t.read_group("without", 1).await?;
    assert_eq!(alive(&t).await?, 0, "who keeps no heartbeat is not known to live");
    t.beat("a", 1, LONG).await?;
    t.beat("a", 1, LONG).await?;
    t.beat("b", 2, LONG).await?;
    t.beat("c", 3, SHORT).await?;
    eventually("a heartbeat runs out", async || Ok(alive(&t).await? == 2)).await?;
    assert_eq!(alive(&other).await?, 0, "groups do not share");
    t.read_group("b", 1).await?;
    t.leave("a", 1).await?;
    assert_eq!(alive(&t).await?, 1);
    t.leave("b", 2).await?;
    assert_eq!(alive(&t).await?, 0, "also where something is pending for it");
    t.beat("b", 2, LONG).await?;
    assert_eq!(alive(&t).await?, 1, "it came back");
    assert_eq!(t.group_state().await?.consumers_alive, None, "nobody has asked");
    Ok(())
}
