//! Inspecting.

use crate::{
    EntryId, ErrorKind,
    backend::{Inspect, Trim, TrimLimit},
    conformance::support::{Streams, Verdict, fails, id, ids},
};

/// A missing stream has no state.
pub(super) async fn a_missing_stream(t: Streams) -> Verdict {
    assert_eq!(t.backend.inspect(&Inspect::subscription(&t.subscription)).await?, None);
    assert_eq!(t.backend.inspect(&Inspect::stream(t.subscription.stream.clone())).await?, None);
    Ok(())
}

/// The state says what the stream holds.
pub(super) async fn what_it_holds(t: Streams) -> Verdict {
    t.append_at([3, 5, 9]).await?;
    let state = t.state().await?;
    assert_eq!((state.len, state.first_id, state.last_id), (3, Some(id(3)), id(9)));
    Ok(())
}

/// The last id survives the entries.
pub(super) async fn the_last_id_survives(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.remove(&ids([5])).await?;
    assert_eq!(t.state().await?.last_id, id(5), "deleted");
    t.backend.trim(&Trim::new(t.subscription.stream.clone(), TrimLimit::Len(0))).await?;
    assert_eq!(t.state().await?.last_id, id(5), "trimmed");
    Ok(())
}

/// The number of entries ever added survives the entries.
pub(super) async fn the_count_survives(t: Streams) -> Verdict {
    t.needs_counts()?;
    t.append_at(1..=5).await?;
    assert_eq!(t.state().await?.entries_added, Some(5));
    t.remove(&ids([2, 5])).await?;
    assert_eq!(t.state().await?.entries_added, Some(5), "deleted");
    t.backend.trim(&Trim::new(t.subscription.stream.clone(), TrimLimit::Len(0))).await?;
    assert_eq!(t.state().await?.entries_added, Some(5), "trimmed");
    t.append_at([6]).await?;
    assert_eq!(t.state().await?.entries_added, Some(6), "appended");
    Ok(())
}

/// A stream that was removed and created anew counts from zero.
pub(super) async fn a_new_stream_counts_anew(t: Streams) -> Verdict {
    t.needs_counts()?;
    t.append_at(1..=5).await?;
    t.remove_stream().await?;
    t.append_at([2]).await?;
    let state = t.state().await?;
    assert_eq!((state.entries_added, state.len, state.last_id), (Some(1), 1, id(2)));
    Ok(())
}

/// A capability is what it says: a backend that lacks one never answers as if it had it.
pub(super) async fn capabilities_are_honest(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    let state = t.state().await?;
    let capabilities = t.backend.capabilities();
    assert_eq!(state.entries_added.is_some(), capabilities.counts_entries);
    assert_eq!(state.incarnation.is_some(), capabilities.names_incarnations);
    Ok(())
}

/// A stream keeps the name of its life through trims, deletions and new groups.
pub(super) async fn a_life_keeps_its_name(t: Streams) -> Verdict {
    t.needs_incarnations()?;
    t.append_at(1..=5).await?;
    let name = t.state().await?.incarnation;
    assert!(name.is_some());
    t.remove(&ids([5])).await?;
    t.backend.trim(&Trim::new(t.subscription.stream.clone(), TrimLimit::Len(0))).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.remove_group().await?;
    t.append_at([7]).await?;
    assert_eq!(t.state().await?.incarnation, name);
    Ok(())
}

/// A stream that was removed and created anew has another name, also where its ids are the same.
pub(super) async fn another_life_has_another_name(t: Streams) -> Verdict {
    t.needs_incarnations()?;
    t.append_at(1..=5).await?;
    let name = t.state().await?.incarnation;
    t.remove_stream().await?;
    t.append_at(1..=5).await?;
    let new = t.state().await?.incarnation;
    assert!(new.is_some() && new != name, "{name:?} {new:?}");
    Ok(())
}

/// A stream that a group created has a life of its own already.
pub(super) async fn a_stream_of_a_group_has_a_life(t: Streams) -> Verdict {
    t.needs_incarnations()?;
    t.ensure_at(EntryId::ZERO).await?;
    let name = t.state().await?.incarnation;
    t.append_at([1]).await?;
    assert!(name.is_some());
    assert_eq!(t.state().await?.incarnation, name);
    Ok(())
}

/// A group that is not there is not in the state.
pub(super) async fn a_missing_group(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    assert_eq!(t.state().await?.group, None);
    t.group("other").ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.state().await?.group, None, "of another name");
    fails(t.group_state().await, ErrorKind::Missing);
    Ok(())
}

/// The group's position and pending list show as they are.
pub(super) async fn a_group(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    let group = t.group_state().await?;
    assert_eq!((group.last_delivered, group.pending, group.first_pending), (EntryId::ZERO, 0, None));

    t.read_group("a", 2).await?;
    t.read_group("b", 2).await?;
    let group = t.group_state().await?;
    assert_eq!((group.last_delivered, group.pending, group.first_pending), (id(4), 4, Some(id(1))));

    t.ack(&ids([1, 3])).await?;
    let group = t.group_state().await?;
    assert_eq!((group.last_delivered, group.pending, group.first_pending), (id(4), 2, Some(id(2))));
    Ok(())
}

/// Entries that left the stream while pending still count as pending.
pub(super) async fn deleted_entries_stay_pending(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 3).await?;
    t.remove(&ids([1, 2])).await?;
    let group = t.group_state().await?;
    assert_eq!((group.pending, group.first_pending), (3, Some(id(1))));
    Ok(())
}

/// Where the server knows how many entries were added up to the last delivered one, it is the right number.
pub(super) async fn entries_read_is_right_or_unknown(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    for read in 1..=5 {
        t.read_group("a", 1).await?;
        let known = t.group_state().await?.entries_read;
        assert!(known.is_none_or(|known| known == read), "{known:?}, not {read}");
    }
    Ok(())
}
