//! What is stored is what was given.

use crate::{
    EntryId, Epoch, ErrorKind, Incarnation, Position, SettledAhead, Subscription,
    conformance::support::{Checkpoints, LONG, Verdict, consumer, fails, id, ids},
};

/// Where nothing was stored, there is nothing.
pub(super) async fn none(t: Checkpoints) -> Verdict {
    assert_eq!(t.backend.load(&t.subscription).await?, None);
    assert_eq!(t.backend.list(&t.subscription.stream).await?, []);
    Ok(())
}

/// Everything about a position comes back.
pub(super) async fn a_position_comes_back(t: Checkpoints) -> Verdict {
    let position = Position::at(id(9))
        .with_ahead(SettledAhead::new(id(40), ids([10, 12, 30])))
        .with_ordinal(Some(7))
        .with_incarnation(Some(Incarnation::new("0123456789abcdef")?));
    t.advance(Epoch(0), &position).await?;
    assert_eq!(t.position().await?, Some(position));
    Ok(())
}

/// Numbers at the end of `u64`, and holes that are runs, come back.
pub(super) async fn extremes_come_back(t: Checkpoints) -> Verdict {
    let hole = crate::IdRange {
        first: EntryId::new(i64::MAX as u64, u64::MAX),
        last: EntryId::new(u64::MAX, u64::MAX - 2),
    };
    let position = Position::at(EntryId::new(0, u64::MAX))
        .with_ahead(SettledAhead::from_ranges(EntryId::MAX, [hole]))
        .with_ordinal(Some(u64::MAX))
        .with_incarnation(Some(Incarnation::new("~".repeat(64))?));
    t.advance(Epoch(0), &position).await?;
    assert_eq!(t.position().await?, Some(position));
    Ok(())
}

/// The record says who wrote it, under which epoch, and when.
pub(super) async fn says_who_and_when(t: Checkpoints) -> Verdict {
    let epoch = t.own("owner", LONG).await?.epoch;
    t.advance_to(epoch, 5).await?;
    let Some(first) = t.backend.load(&t.subscription).await? else { panic!("it is stored") };
    assert_eq!((first.epoch, &first.owner), (epoch, &Some(consumer("owner"))));
    assert!(first.updated_at.as_millis() > 1_600_000_000_000, "{}", first.updated_at);
    t.advance_to(epoch, 6).await?;
    let Some(second) = t.backend.load(&t.subscription).await? else { panic!("it is stored") };
    assert!(second.updated_at >= first.updated_at);
    Ok(())
}

/// With the same watermark, more that is settled ahead is progress, and less is not.
pub(super) async fn more_settled_ahead_is_progress(t: Checkpoints) -> Verdict {
    let ahead = |top| Position::at(id(5)).with_ahead(SettledAhead::new(id(top), ids([6])));
    assert!(t.advance(Epoch(0), &ahead(8)).await?.moved);
    assert!(t.advance(Epoch(0), &ahead(9)).await?.moved);
    assert!(!t.advance(Epoch(0), &ahead(8)).await?.moved);
    assert_eq!(t.position().await?, Some(ahead(9)));
    Ok(())
}

/// A higher watermark replaces what was settled ahead of the lower one.
pub(super) async fn a_higher_watermark_replaces_what_is_ahead(t: Checkpoints) -> Verdict {
    t.advance(Epoch(0), &Position::at(id(5)).with_ahead(SettledAhead::new(id(9), ids([6])))).await?;
    t.advance_to(Epoch(0), 9).await?;
    assert_eq!(t.position().await?, Some(Position::at(id(9))));
    Ok(())
}

/// An ordinal that a new position does not know is kept at the same watermark, and not carried to another one.
pub(super) async fn ordinals_stay_with_their_watermark(t: Checkpoints) -> Verdict {
    let known = Position::at(id(5)).with_ordinal(Some(5));
    t.advance(Epoch(0), &Position::at(id(5))).await?;
    assert!(t.advance(Epoch(0), &known).await?.moved, "to know more is progress");
    assert!(!t.advance(Epoch(0), &Position::at(id(5))).await?.moved, "to know less is not");
    assert_eq!(t.position().await?, Some(known));
    t.advance_to(Epoch(0), 6).await?;
    assert_eq!(t.position().await?.and_then(|position| position.ordinal), None);
    Ok(())
}

/// The name of the stream's life is kept where a new position does not know it.
pub(super) async fn the_life_of_the_stream_is_kept(t: Checkpoints) -> Verdict {
    let life = Some(Incarnation::new("life")?);
    t.advance(Epoch(0), &Position::at(id(5)).with_incarnation(life.clone())).await?;
    t.advance_to(Epoch(0), 6).await?;
    assert_eq!(t.position().await?.and_then(|position| position.incarnation), life);
    Ok(())
}

/// However much is settled ahead, what is stored never counts a hole as settled.
pub(super) async fn many_holes_are_never_settled(t: Checkpoints) -> Verdict {
    let holes = ids((1..=300).map(|n| n * 1000 + 1));
    let position = Position::at(id(1000)).with_ahead(SettledAhead::new(id(999_999), holes.clone()));
    t.advance(Epoch(0), &position).await?;
    let Some(stored) = t.position().await? else { panic!("it is stored") };
    assert_eq!(stored.watermark, id(1000));
    for hole in holes {
        assert!(!stored.settles(hole), "{hole} is not settled");
    }
    Ok(())
}

/// The list holds the checkpoints of one stream.
pub(super) async fn the_list_of_a_stream(t: Checkpoints) -> Verdict {
    let stream = t.subscription.stream.to_string();
    for (n, group) in (1..).zip(["a", "b:c", "*", "ä"]) {
        t.of(Subscription::new(&stream, group)?).advance_to(Epoch(0), n).await?;
    }
    t.of(Subscription::new(format!("{stream}2"), "other")?).advance_to(Epoch(0), 9).await?;
    t.of(Subscription::new(&stream, "owned, no progress")?).own("a", LONG).await?;
    let mut list: Vec<_> = t.backend.list(&t.subscription.stream).await?;
    list.sort_by_key(|(_, checkpoint)| checkpoint.position.watermark);
    let list: Vec<_> =
        list.iter().map(|(group, checkpoint)| (group.as_str(), checkpoint.position.watermark)).collect();
    assert_eq!(list, [("a", id(1)), ("b:c", id(2)), ("*", id(3)), ("ä", id(4))]);
    Ok(())
}

/// Subscriptions whose names look alike are different ones.
pub(super) async fn names_never_collide(t: Checkpoints) -> Verdict {
    let base = t.subscription.stream.to_string();
    let pairs = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("a", "b/c"),
        ("a/b", "c"),
        ("a b", "c"),
        ("a", "b c"),
        ("A", "b"),
        ("a", "B"),
        ("a", "b"),
        ("a ", "b"),
        ("a", " b"),
        ("a", "b "),
        ("{a}", "b"),
        ("{a", "}b"),
        ("}{", "{}"),
        ("a%", "_"),
        ("a_", "%"),
        ("a\\", "b"),
        ("a'", "\"b"),
        ("ä", "b"),
        ("a\u{308}", "b"),
        ("a", "b;--"),
        ("a*", "?"),
        ("a[b]", "c"),
    ];
    let all: Vec<_> = pairs
        .iter()
        .map(|(stream, group)| Ok(t.of(Subscription::new(format!("{base}{stream}"), group)?)))
        .collect::<crate::Result<_>>()?;
    for (n, one) in (1..).zip(&all) {
        assert_eq!(one.watermark().await?, None, "{} was written as another", one.subscription);
        one.advance_to(Epoch(0), n).await?;
    }
    for (n, one) in (1..).zip(&all) {
        assert_eq!(one.watermark().await?, Some(id(n)), "{}", one.subscription);
    }
    Ok(())
}

/// Names may be as long as a name may be.
pub(super) async fn the_longest_names(t: Checkpoints) -> Verdict {
    let base = t.subscription.stream.to_string();
    let stream = format!("{base}{}", "s".repeat(512 - base.len()));
    let long = t.of(Subscription::new(stream, "ä".repeat(256))?);
    let epoch = long.own(&"c".repeat(512), LONG).await?.epoch;
    long.advance_to(epoch, 5).await?;
    assert_eq!(long.watermark().await?, Some(id(5)));
    assert_eq!(long.backend.list(&long.subscription.stream).await?.len(), 1);
    Ok(())
}

/// After it was closed, a backend answers with a typed error, and may be closed again.
pub(super) async fn a_closed_backend_says_so(t: Checkpoints) -> Verdict {
    t.backend.close().await;
    t.backend.close().await;
    fails(t.backend.load(&t.subscription).await, ErrorKind::Closed);
    fails(t.advance_to(Epoch(0), 5).await, ErrorKind::Closed);
    fails(t.acquire("a", LONG).await, ErrorKind::Closed);
    Ok(())
}
