use highwater::{EntryId, ErrorKind, Fields, StreamName, backend::*};

use crate::support::*;

#[tokio::test]
async fn entries_come_back_as_they_were_appended() {
    let store = Store::new().await;
    let odd: Fields =
        [(&b""[..], &b""[..]), (b"k", b"1"), (b"k", b"2"), (b"\xff\x00", b"\xfe")].into_iter().collect();
    let large: Fields = [("large", vec![7u8; 900_000])].into_iter().collect();
    let entries = [&odd, &large].map(|fields| NewEntry::new(fields.clone())).to_vec();
    let ids = store.sqlite.append(&Append::new(store.orders.stream.clone(), entries)).await.unwrap();
    let read = Read::new(store.orders.stream.clone(), EntryId::ZERO, 10);
    let read = store.sqlite.read(&read).await.unwrap();
    assert_eq!(read.iter().map(|e| &e.fields).collect::<Vec<_>>(), [&odd, &large]);
    assert_eq!(
        read.iter().map(|e| e.id).collect::<Vec<_>>(),
        ids.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_failed_entry_does_not_take_back_those_around_it() {
    let store = Store::new().await;
    let new = |id| NewEntry::new(fields(1)).with_id(id);
    let entries = vec![new(id(5)), new(id(5)), new(id(4)), NewEntry::new(Fields::default()), new(id(6))];
    let request = Append::new(store.orders.stream.clone(), entries);
    let results: Vec<_> =
        store.sqlite.append(&request).await.unwrap().into_iter().map(|r| r.map_err(|e| e.kind())).collect();
    let invalid = Err(ErrorKind::Invalid);
    assert_eq!(results, [Ok(id(5)), invalid, invalid, invalid, Ok(id(6))]);
    assert_eq!(store.read(EntryId::ZERO).await, [id(5), id(6)]);

    assert_eq!(
        kind(store.sqlite.append(&Append::new(store.orders.stream.clone(), vec![])).await),
        ErrorKind::Invalid
    );
    let other = StreamName::new("other").unwrap();
    let zero = Append::new(other.clone(), vec![new(EntryId::ZERO)]);
    assert!(store.sqlite.append(&zero).await.unwrap()[0].is_err(), "0-0 is before every entry");
    assert_eq!(store.sqlite.inspect(&Inspect::stream(other)).await.unwrap(), None, "nothing was created");
}

#[tokio::test]
async fn ids_are_full_unsigned_numbers() {
    let store = Store::new().await;
    let edge = i64::MAX as u64;
    let ids: Vec<_> =
        [(0, 1), (0, edge), (0, edge + 1), (0, u64::MAX), (1, 0), (edge, edge), (edge + 1, 0), (u64::MAX, 0)]
            .map(|(ms, seq)| EntryId::new(ms, seq))
            .to_vec();
    let entries = ids.iter().map(|&id| NewEntry::new(fields(0)).with_id(id)).collect();
    store.sqlite.append(&Append::new(store.orders.stream.clone(), entries)).await.unwrap();
    store.ensure_group(0).await;
    for (i, &after) in ids.iter().enumerate() {
        assert_eq!(store.read(after).await, ids[i + 1..], "after {after}");
    }
    let request = ReadGroup::new(store.orders.clone(), name("a"), 100);
    let delivered: Vec<_> = store.sqlite.read_group(&request).await.unwrap().iter().map(|d| d.id()).collect();
    assert_eq!(delivered, ids);
    // Each is found for its ack, in any order, and the rest stays.
    for (n, &acked) in ids.iter().enumerate() {
        let answer = store.sqlite.ack(&Ack::new(store.orders.clone(), vec![acked])).await.unwrap();
        assert_eq!(answer.acked, 1, "{acked}");
        let watermark = ids.get(n + 1).map_or(acked, |next| next.prev().unwrap());
        assert_eq!(answer.position.unwrap().watermark, watermark);
    }

    let auto = Append::new(store.orders.stream.clone(), vec![NewEntry::new(fields(0))]);
    let next = store.sqlite.append(&auto).await.unwrap().remove(0).unwrap();
    assert_eq!(
        next,
        EntryId::new(u64::MAX, 1),
        "an id of its own choice is above the last one, whatever the clock says"
    );
    let last = Append::new(store.orders.stream.clone(), vec![NewEntry::new(fields(0)).with_id(EntryId::MAX)]);
    store.sqlite.append(&last).await.unwrap().remove(0).unwrap();
    assert!(store.sqlite.append(&auto).await.unwrap().remove(0).is_err(), "there is none above");
    assert!(store.read(EntryId::MAX).await.is_empty());
    let removed = store.sqlite.remove(&Removal::Entries(store.orders.stream.clone(), ids)).await.unwrap();
    assert_eq!(removed, 8);
}

#[tokio::test]
async fn what_was_ever_added_outlives_the_entries() {
    let store = Store::new().await;
    store.append(1..=10).await;
    let before = store.state().await;
    assert_eq!(
        (before.len, before.first_id, before.last_id, before.entries_added),
        (10, Some(id(1)), id(10), Some(10))
    );
    let stream = || store.orders.stream.clone();

    let trim = |limit| Trim::new(stream(), limit);
    assert_eq!(store.sqlite.trim(&trim(TrimLimit::Below(id(3)))).await.unwrap(), 2);
    assert_eq!(store.sqlite.trim(&trim(TrimLimit::Below(id(3)))).await.unwrap(), 0);
    assert_eq!(store.sqlite.trim(&trim(TrimLimit::Len(6))).await.unwrap(), 2);
    assert_eq!(store.sqlite.trim(&trim(TrimLimit::Len(0)).keep_from(Some(id(6)))).await.unwrap(), 1);
    assert_eq!(
        store.sqlite.remove(&Removal::Entries(stream(), vec![id(8), id(8), id(99)])).await.unwrap(),
        1
    );
    assert_eq!(store.read(EntryId::ZERO).await, [id(6), id(7), id(9), id(10)]);
    assert_eq!(store.state().await.len, 4);
    assert_eq!(store.sqlite.trim(&trim(TrimLimit::Len(0)).approximate()).await.unwrap(), 4);

    let after = store.state().await;
    assert_eq!((after.len, after.first_id, after.last_id, after.entries_added), (0, None, id(10), Some(10)));
    assert_eq!(after.incarnation, before.incarnation);
    assert_eq!(
        store.sqlite.trim(&Trim::new(StreamName::new("none").unwrap(), TrimLimit::Len(0))).await.unwrap(),
        0
    );
}

#[tokio::test]
async fn a_stream_that_is_created_anew_has_another_name_for_its_life() {
    let store = Store::new().await;
    store.append([1, 2]).await;
    store.ensure_group(0).await;
    store.read_group("a", 1).await;
    let before = store.state().await;
    assert_eq!(store.sqlite.remove(&Removal::Stream(store.orders.stream.clone())).await.unwrap(), 1);
    assert_eq!(store.sqlite.remove(&Removal::Stream(store.orders.stream.clone())).await.unwrap(), 0);
    assert_eq!(store.sqlite.inspect(&Inspect::subscription(&store.orders)).await.unwrap(), None);
    store.append([1]).await;
    let after = store.state().await;
    assert_ne!(before.incarnation, after.incarnation);
    assert_eq!((after.entries_added, after.group), (Some(1), None), "nothing is left of the old one");
    let mut raw = store.raw().await;
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM highwater_pending) + (SELECT count(*) FROM highwater_consumer)",
    )
    .fetch_one(&mut raw)
    .await
    .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn zero_is_no_limit() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let (orders, a) = (store.orders.clone(), name("a"));
    assert_eq!(
        kind(store.sqlite.read(&Read::new(orders.stream.clone(), EntryId::ZERO, 0)).await),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(store.sqlite.read_group(&ReadGroup::new(orders.clone(), a.clone(), 0)).await),
        ErrorKind::Invalid
    );
    let pending = ReadPending::new(orders.clone(), a.clone(), EntryId::ZERO, 0);
    assert_eq!(kind(store.sqlite.read_pending(&pending).await), ErrorKind::Invalid);
    let claim = Claim::new(orders, a, 0, std::time::Duration::ZERO);
    assert_eq!(kind(store.sqlite.claim(&claim).await), ErrorKind::Invalid);
}

#[tokio::test]
async fn large_batches_keep_their_order() {
    let store = Store::new().await;
    for batch in [1u64, 3, 31, 255, 257, 1000] {
        let last = store.read(EntryId::ZERO).await.last().map_or(0, |id| id.ms);
        store.append(last + 1..=last + batch).await;
    }
    let all = store.read(EntryId::ZERO).await;
    assert_eq!(all, (1..=1547).map(id).collect::<Vec<_>>());
    assert_eq!(store.state().await.len, 1547);
}
