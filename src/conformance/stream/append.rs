//! Appending.

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    EntryId, ErrorKind, Fields, Subscription,
    backend::{NewEntry, Read},
    conformance::support::{Streams, Verdict, each_once, fails, fields, id, ids},
};

/// Ids that the server chooses ascend, within a request and from one to the next.
pub(super) async fn ids_ascend(t: Streams) -> Verdict {
    let mut appended = t.append(20).await?;
    for _ in 0..20 {
        appended.extend(t.append(1).await?);
    }
    assert!(appended.is_sorted_by(|a, b| a < b), "{appended:?}");
    assert_eq!(t.read(EntryId::ZERO, 100).await?, appended);
    Ok(())
}

/// An id that the caller chooses is the entry's id.
pub(super) async fn explicit_ids_are_kept(t: Streams) -> Verdict {
    let chosen = [EntryId::new(0, 1), EntryId::new(5, 7), EntryId::new(5, 8), EntryId::new(6, 0)];
    let entries = chosen.iter().map(|&id| NewEntry::new(fields("x")).with_id(id)).collect();
    for (result, id) in t.append_all(entries).await?.into_iter().zip(chosen) {
        assert_eq!(result?, id);
    }
    assert_eq!(t.read(EntryId::ZERO, 100).await?, chosen);
    Ok(())
}

/// An id that is not above the last one is refused and changes nothing.
pub(super) async fn an_id_not_above_the_last_is_invalid(t: Streams) -> Verdict {
    t.append_at([5]).await?;
    for low in [EntryId::ZERO, EntryId::new(4, 99), id(5)] {
        let refused = t.append_all(vec![NewEntry::new(fields("low")).with_id(low)]).await?.remove(0);
        fails(refused, ErrorKind::Invalid);
    }
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids([5]));
    Ok(())
}

/// `0-0` is not the id of an entry, also in a new stream.
pub(super) async fn zero_is_no_id(t: Streams) -> Verdict {
    let refused = t.append_all(vec![NewEntry::new(fields("0")).with_id(EntryId::ZERO)]).await?.remove(0);
    fails(refused, ErrorKind::Invalid);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, []);
    Ok(())
}

/// An id that was removed is not given again.
pub(super) async fn a_removed_id_is_not_free(t: Streams) -> Verdict {
    t.append_at([5]).await?;
    t.remove(&ids([5])).await?;
    fails(t.append_at([5]).await, ErrorKind::Invalid);
    Ok(())
}

/// An entry without fields is refused.
pub(super) async fn an_entry_needs_fields(t: Streams) -> Verdict {
    let refused = t.append_all(vec![NewEntry::new(Fields::default())]).await?.remove(0);
    fails(refused, ErrorKind::Invalid);
    assert_eq!(t.read(EntryId::ZERO, 100).await?, []);
    Ok(())
}

/// Fields come back byte by byte: order, duplicates, empty and non-UTF-8 names and values.
pub(super) async fn bytes_come_back(t: Streams) -> Verdict {
    let all: Vec<u8> = (0..=255).collect();
    let odd: Fields = vec![
        (Bytes::from_static(b"z"), Bytes::from_static(b"first")),
        (Bytes::from_static(b"a"), Bytes::from_static(b"1")),
        (Bytes::from_static(b"a"), Bytes::from_static(b"2")),
        (Bytes::from_static(b"a"), Bytes::from_static(b"1")),
        (Bytes::new(), Bytes::new()),
        (Bytes::new(), Bytes::from_static(b"no name")),
        (Bytes::from_static(b"no value"), Bytes::new()),
        (Bytes::from_static(b"\xff\xfe\0\r\n"), Bytes::from(all)),
    ]
    .into();
    t.append_all(vec![NewEntry::new(odd.clone())]).await?.remove(0)?;
    t.ensure_at(EntryId::ZERO).await?;

    let read = t.backend.read(&Read::new(t.subscription.stream.clone(), EntryId::ZERO, 1)).await?;
    assert_eq!(read[0].fields, odd, "read");
    let delivered = t.backend.read_group(&t.reading("a", 1)).await?;
    assert_eq!(*delivered[0].fields(), odd, "read_group");
    let pending = t.pending_after("a", EntryId::ZERO, 1).await?;
    assert_eq!(pending[0].fields, Some(odd.clone()), "read_pending");
    let claimed = t.claim("b", 1, std::time::Duration::ZERO).await?;
    assert_eq!(claimed[0].fields, Some(odd), "claim");
    Ok(())
}

/// An entry just below a megabyte survives.
pub(super) async fn a_large_entry_survives(t: Streams) -> Verdict {
    let payload = Bytes::from(vec![0xA5; 1_000_000]);
    let large: Fields = vec![(Bytes::from_static(b"p"), payload)].into();
    t.append_all(vec![NewEntry::new(large.clone())]).await?.remove(0)?;
    let read = t.backend.read(&Read::new(t.subscription.stream.clone(), EntryId::ZERO, 1)).await?;
    assert!(read[0].fields == large, "the bytes differ");
    Ok(())
}

/// A failed entry takes back none before it and holds up none behind it.
pub(super) async fn a_failed_entry_stands_alone(t: Streams) -> Verdict {
    let entry = |ms| NewEntry::new(fields("x")).with_id(id(ms));
    let mut results = t.append_all(vec![entry(3), entry(3), entry(4)]).await?.into_iter();
    let mut next = || results.next().expect("there is a result for each entry");
    assert_eq!(next()?, id(3));
    fails(next(), ErrorKind::Invalid);
    assert_eq!(next()?, id(4));
    assert!(results.next().is_none(), "there is one result for each entry");
    assert_eq!(t.read(EntryId::ZERO, 100).await?, ids([3, 4]));
    Ok(())
}

/// Ids go up to the last that two `u64` can hold; behind it, the stream takes no more.
pub(super) async fn ids_reach_the_end_of_u64(t: Streams) -> Verdict {
    let last_but_one = EntryId::new(u64::MAX, u64::MAX - 1);
    let edges = [EntryId::new(1, u64::MAX), EntryId::new(u64::MAX, 0), last_but_one, EntryId::MAX];
    for id in edges {
        t.append_all(vec![NewEntry::new(fields("x")).with_id(id)]).await?.remove(0)?;
    }
    assert_eq!(t.read(EntryId::ZERO, 100).await?, edges);
    assert_eq!(t.read(last_but_one, 100).await?, [EntryId::MAX]);
    assert_eq!(t.read(EntryId::MAX, 100).await?, []);
    fails(t.append(1).await, ErrorKind::Invalid);
    Ok(())
}

/// Where the last id is ahead of the server's clock, the ids that it chooses still ascend.
pub(super) async fn chosen_ids_follow_a_far_future_one(t: Streams) -> Verdict {
    let future = EntryId::new(99_999_999_999_999, u64::MAX - 1);
    t.append_all(vec![NewEntry::new(fields("x")).with_id(future)]).await?.remove(0)?;
    let appended = t.append(3).await?;
    assert!(appended[0] > future && appended.is_sorted_by(|a, b| a < b), "{appended:?}");
    Ok(())
}

/// Appends that run side by side all arrive, each under its own id.
pub(super) async fn concurrent_appends_all_arrive(t: Streams) -> Verdict {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let t = t.clone();
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..10 {
                ids.extend(t.append(2).await?);
            }
            Ok::<_, crate::Error>(ids)
        });
    }
    let mut appended = Vec::new();
    while let Some(ids) = tasks.join_next().await {
        appended.extend(ids.expect("the task does not panic")?);
    }
    each_once(appended, &t.read(EntryId::ZERO, 1000).await?);
    assert_eq!(t.state().await?.len, 160);
    Ok(())
}

/// Streams whose names look alike are different streams.
pub(super) async fn streams_do_not_mix(t: Streams) -> Verdict {
    let base = t.subscription.stream.to_string();
    let names = ["", "A", "a", "a ", "a:b", "{a}b", "a{b}", "}{", "a%", "a_", "ä", "a'b\"c\\"];
    let streams: Vec<_> = names
        .iter()
        .map(|name| {
            Ok(Streams { subscription: Subscription::new(format!("{base}{name}"), "g")?, ..t.clone() })
        })
        .collect::<crate::Result<_>>()?;
    for (n, stream) in (1..).zip(&streams) {
        stream.append_at([n]).await?;
    }
    for (n, stream) in (1..).zip(&streams) {
        assert_eq!(stream.read(EntryId::ZERO, 10).await?, ids([n]), "{}", stream.subscription.stream);
        assert_eq!(stream.remove_stream().await?, 1);
    }
    Ok(())
}
