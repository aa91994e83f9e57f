//! Append, read, trim, inspect, groups.

use std::time::Duration;

use highwater::{
    EntryId, ErrorKind, Fields, Outcome, Position, Retry, SettledAhead, Subscription, backend::*,
};

use crate::server::*;

#[tokio::test]
async fn bytes_come_back_as_they_went_in() {
    let server = Server::start().await;
    for url in [server.url(), server.url() + "?protocol=resp3", server.socket()] {
        let redis = connect(url.clone()).await.unwrap();
        let odd: Fields = [(&b"a"[..], &b"1"[..]), (b"a", b"2"), (b"", b""), (b"\xff\0\r\n", b"\xfe")]
            .into_iter()
            .collect();
        let key = stream(&format!("odd{}", url.len()));
        let id = redis.append(&Append::new(key.clone(), vec![NewEntry::new(odd.clone())])).await.unwrap();
        let id = *id[0].as_ref().unwrap();
        let read = redis.read(&Read::new(key.clone(), EntryId::ZERO, 10)).await.unwrap();
        assert_eq!((read[0].id, &read[0].fields), (id, &odd), "{url}");
        assert!(redis.read(&Read::new(key.clone(), id, 10)).await.unwrap().is_empty());
        let sub = Subscription { stream: key, group: "g".parse().unwrap() };
        redis.ensure_group(&EnsureGroup::new(sub.clone(), &Position::default())).await.unwrap();
        let read = redis.read_group(&ReadGroup::new(sub.clone(), name("c"), 10)).await.unwrap();
        assert_eq!(read[0].fields(), &odd, "{url}");
        assert!(redis.read_group(&ReadGroup::new(sub.clone(), name("c"), 10)).await.unwrap().is_empty());
        let pending =
            redis.read_pending(&ReadPending::new(sub.clone(), name("c"), EntryId::ZERO, 10)).await.unwrap();
        assert_eq!(pending, [PendingEntry::new(id, 2, Some(odd))], "{url}");
        let state = redis.inspect(&Inspect::subscription(&sub)).await.unwrap().unwrap();
        assert_eq!((state.first_id, state.last_id, state.len), (Some(id), id, 1));
        assert_eq!(state.group.unwrap().first_pending, Some(id));
        let claim = Claim::new(sub.clone(), name("d"), 1, Duration::ZERO);
        assert_eq!(redis.claim(&claim).await.unwrap().entries[0].deliveries, 3);
        assert_eq!(redis.ack(&Ack::new(sub, vec![id])).await.unwrap().position, Some(Position::at(id)));
    }
}

#[tokio::test]
async fn each_appended_entry_has_its_own_result() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let entry = |ms| NewEntry::new(fields("v")).with_id(id(ms));
    let none = NewEntry::new(Fields::default());
    let entries = vec![entry(5), entry(5), none, entry(7), NewEntry::new(fields("v")).with_id(EntryId::ZERO)];
    let results = redis.append(&Append::new(stream("s"), entries)).await.unwrap();
    let kinds: Vec<_> = results.iter().map(|r| r.as_ref().map(|id| id.ms).map_err(|e| e.kind())).collect();
    let invalid = Err(ErrorKind::Invalid);
    assert_eq!(kinds, [Ok(5), invalid, invalid, Ok(7), invalid]);
    assert!(redis.append(&Append::new(stream("s"), vec![])).await.unwrap().is_empty());
    let append = Append::new(
        stream("max"),
        vec![entry(1), NewEntry::new(fields("v")).with_id(EntryId::MAX), NewEntry::new(fields("v"))],
    );
    let last = redis.append(&append).await.unwrap();
    assert_eq!(last[1].as_ref().unwrap(), &EntryId::MAX);
    assert_eq!(last[2].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
    assert!(redis.read(&Read::new(stream("max"), EntryId::MAX, 1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn wrong_types_and_absence_are_told_apart() {
    let server = Server::start().await;
    let redis = server.backend().await;
    server.raw().await.run::<()>("SET s text").await;
    let missing = Subscription::new("absent", "g").unwrap();
    let (s, g) = (subscription(), name("c"));
    let mut kinds = Vec::new();
    for sub in [s.clone(), missing.clone()] {
        kinds.push([
            redis.read_group(&ReadGroup::new(sub.clone(), g.clone(), 1)).await.map(|_| ()),
            redis.read_pending(&ReadPending::new(sub.clone(), g.clone(), id(0), 1)).await.map(|_| ()),
            redis.claim(&Claim::new(sub.clone(), g.clone(), 1, Duration::ZERO)).await.map(|_| ()),
            redis.inspect(&Inspect::subscription(&sub)).await.map(|_| ()),
            redis.ack(&Ack::new(sub.clone(), ids([1]))).await.map(|_| ()),
            redis.ack(&Ack::new(sub.clone(), vec![])).await.map(|_| ()),
            redis.leave(&Leave::new(sub.clone(), g.clone(), Token(1))).await.map(|_| ()),
            redis.read(&Read::new(sub.stream.clone(), id(0), 1)).await.map(|_| ()),
            redis.trim(&Trim::new(sub.stream.clone(), TrimLimit::Len(1))).await.map(|_| ()),
            redis
                .trim(&Trim::new(sub.stream.clone(), TrimLimit::Len(1)).keep_from(Some(id(1))))
                .await
                .map(|_| ()),
            redis.remove(&Removal::Entries(sub.stream.clone(), ids([1]))).await.map(|_| ()),
            redis.remove(&Removal::Stream(sub.stream.clone())).await.map(|_| ()),
            redis.remove(&Removal::Group(sub.clone())).await.map(|_| ()),
        ]);
    }
    for result in &kinds[0] {
        assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::Invalid, "{result:?}");
    }
    for (i, result) in kinds[1].iter().enumerate() {
        let kind = result.as_ref().err().map(highwater::Error::kind);
        assert_eq!(kind, (i < 3).then_some(ErrorKind::Missing), "{i}");
    }
    let append =
        redis.append(&Append::new(s.stream.clone(), vec![NewEntry::new(fields("v"))])).await.unwrap();
    assert_eq!(append[0].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
    let ensure = EnsureGroup::new(s, &Position::default());
    assert_eq!(redis.ensure_group(&ensure).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(redis.ack(&Ack::new(missing.clone(), ids([1]))).await.unwrap(), Acked::default());
    assert_eq!(redis.inspect(&Inspect::subscription(&missing)).await.unwrap(), None);
    assert_eq!(server.raw().await.run::<String>("GET s").await, "text", "nothing was changed");
}

#[tokio::test]
async fn a_group_is_created_once_and_moved_forward_only() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let at = |ms, ordinal| EnsureGroup::new(subscription(), &Position::at(id(ms)).with_ordinal(ordinal));
    assert!(redis.ensure_group(&at(0, None)).await.unwrap(), "the stream is created too");
    assert!(!redis.ensure_group(&at(0, None)).await.unwrap());
    fill(&redis, 1, 20).await;
    assert_eq!(deliver(&redis, "c", 2).await, ids(1..=2));
    assert!(!redis.ensure_group(&at(10, Some(10))).await.unwrap());
    let group = async || {
        redis.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap().group.unwrap()
    };
    let state = group().await;
    assert_eq!((state.last_delivered, state.pending, state.first_pending), (id(10), 2, Some(id(1))));
    if redis.capabilities().counts_entries {
        assert_eq!(state.entries_read, Some(10));
    }
    assert!(!redis.ensure_group(&at(9, Some(9))).await.unwrap());
    assert_eq!(group().await.last_delivered, id(10), "never back");
    assert_eq!(deliver(&redis, "c", 1).await, ids([11]));
    assert_eq!(redis.remove(&Removal::Group(subscription())).await.unwrap(), 1);
    assert_eq!(redis.remove(&Removal::Group(subscription())).await.unwrap(), 0);
    assert!(redis.ensure_group(&at(18, Some(18))).await.unwrap());
    assert_eq!(deliver(&redis, "c", 10).await, ids(19..=20));
}

#[tokio::test]
async fn trimming_keeps_what_must_be_kept() {
    let server = Server::start().await;
    let redis = server.backend().await;
    fill(&redis, 1, 1000).await;
    let first = async || redis.inspect(&Inspect::stream(stream("s"))).await.unwrap().unwrap().first_id;
    let trim = |limit| Trim::new(stream("s"), limit);
    assert_eq!(redis.trim(&trim(TrimLimit::Below(id(11)))).await.unwrap(), 10);
    assert_eq!(redis.trim(&trim(TrimLimit::Len(980))).await.unwrap(), 10);
    assert_eq!(first().await, Some(id(21)));
    assert_eq!(redis.trim(&trim(TrimLimit::Below(id(100))).keep_from(Some(id(31)))).await.unwrap(), 10);
    assert_eq!(
        redis.trim(&trim(TrimLimit::Len(960)).keep_from(Some(id(900)))).await.unwrap(),
        10,
        "len decides"
    );
    assert_eq!(
        redis.trim(&trim(TrimLimit::Len(0)).keep_from(Some(id(901)))).await.unwrap(),
        860,
        "id decides"
    );
    assert_eq!(first().await, Some(id(901)));
    assert_eq!(redis.trim(&trim(TrimLimit::Len(0)).keep_from(Some(EntryId::ZERO))).await.unwrap(), 0);
    assert_eq!(redis.trim(&trim(TrimLimit::Len(99)).approximate()).await.unwrap(), 0, "less than a node");
    assert_eq!(redis.trim(&trim(TrimLimit::Len(0)).keep_from(Some(EntryId::MAX))).await.unwrap(), 100);
    let state = redis.inspect(&Inspect::stream(stream("s"))).await.unwrap().unwrap();
    assert_eq!((state.len, state.first_id, state.last_id), (0, None, id(1000)));
    if redis.capabilities().counts_entries {
        assert_eq!(state.entries_added, Some(1000));
    }
}

#[tokio::test]
async fn trimming_in_steps_reaches_its_end() {
    let server = Server::start().await;
    let redis = server.backend().await;
    fill(&redis, 1, 20_000).await;
    let trim = Trim::new(stream("s"), TrimLimit::Len(3)).keep_from(Some(id(19_001)));
    assert_eq!(redis.trim(&trim).await.unwrap(), 19_000);
}

#[tokio::test]
async fn a_read_of_no_entries_is_refused() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    let kinds = [
        redis.read(&Read::new(stream("s"), id(0), 0)).await.unwrap_err().kind(),
        redis.read_group(&ReadGroup::new(subscription(), name("c"), 0)).await.unwrap_err().kind(),
        redis.read_pending(&ReadPending::new(subscription(), name("c"), id(0), 0)).await.unwrap_err().kind(),
        redis.claim(&Claim::new(subscription(), name("c"), 0, Duration::ZERO)).await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Invalid; 4]);
}

#[tokio::test]
async fn history_shows_deleted_entries_and_counts_deliveries() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 5).await;
    deliver(&redis, "c", 4).await;
    assert_eq!(redis.remove(&Removal::Entries(stream("s"), ids([1, 2, 77]))).await.unwrap(), 2);
    let read = |after, limit| ReadPending::new(subscription(), name("c"), after, limit);
    let pending = redis.read_pending(&read(id(0), 3)).await.unwrap();
    let parts: Vec<_> = pending.iter().map(|p| (p.id, p.deliveries, p.fields.is_some())).collect();
    assert_eq!(parts, [(id(1), 1, false), (id(2), 1, false), (id(3), 2, true)]);
    assert_eq!(redis.read_pending(&read(id(3), 3)).await.unwrap()[0].id, id(4));
    assert!(redis.read_pending(&read(id(4), 3)).await.unwrap().is_empty());
    assert!(redis.read_pending(&read(EntryId::MAX, 3)).await.unwrap().is_empty());
    assert_eq!(deliver(&redis, "c", 5).await, ids([5]), "the greatest id did not read as new entries");
    let other = ReadPending::new(subscription(), name("other"), id(0), 3);
    assert!(redis.read_pending(&other).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_goes_with_its_groups_and_its_checkpoints_stay() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 5).await;
    let beat = Heartbeat::new(subscription(), name("c"), Token(1), Duration::from_secs(60));
    redis.heartbeat(&beat).await.unwrap();
    let advance = Advance::new(subscription(), highwater::Epoch(0), Position::at(id(2)), name("c"));
    redis.advance(&advance).await.unwrap();
    assert_eq!(redis.remove(&Removal::Stream(stream("s"))).await.unwrap(), 1);
    assert_eq!(redis.remove(&Removal::Stream(stream("s"))).await.unwrap(), 0);
    let mut keys: Vec<String> = server.raw().await.run("KEYS *").await;
    keys.sort();
    assert_eq!(keys, ["highwater:{s}:checkpoint:1:s:g", "highwater:{s}:groups:1:s"]);
}

#[tokio::test]
async fn weird_names_work_everywhere() {
    let server = Server::start().await;
    let redis = server.backend().await;
    for key in ["{a}b", "a{}b", "{x", "x}", "}{", "{}", "a b", "ä→"] {
        let sub = Subscription::new(key, "g}{ :ü").unwrap();
        redis
            .append(&Append::new(sub.stream.clone(), vec![NewEntry::new(fields(key)).with_id(id(1))]))
            .await
            .unwrap();
        redis.ensure_group(&EnsureGroup::new(sub.clone(), &Position::default())).await.unwrap();
        redis
            .heartbeat(&Heartbeat::new(sub.clone(), name("c"), Token(1), Duration::from_secs(9)))
            .await
            .unwrap();
        redis.read_group(&ReadGroup::new(sub.clone(), name("c"), 1)).await.unwrap();
        let settle = Settle::new(sub.clone(), ids([1]), highwater::Epoch(0), name("c"));
        assert_eq!(redis.settle(&settle).await.unwrap().acked, 1, "{key}");
        let list = redis.list(&sub.stream).await.unwrap();
        assert_eq!(list.len(), 1, "{key}");
        assert_eq!(list[0].0, sub.group);
        assert_eq!(redis.leave(&Leave::new(sub.clone(), name("c"), Token(1))).await.unwrap().pending, 0);
    }
}

#[tokio::test]
async fn keys_lie_in_the_slot_that_the_server_computes() {
    let server = Server::start_with(&["--cluster-enabled", "yes"]).await;
    let raw = server.raw().await;
    // Names of keys as the backend makes them, from a server that is no cluster.
    let plain = Server::start().await;
    let redis = plain.backend().await;
    for key in ["orders", "{a}b", "a{}b", "{x", "x}", "}{", "{}", "a{b{c}d", "}}{{"] {
        let sub = Subscription::new(key, "g}{").unwrap();
        redis
            .advance(&Advance::new(sub.clone(), highwater::Epoch(0), Position::at(id(1)), name("c")))
            .await
            .unwrap();
        redis.heartbeat(&Heartbeat::new(sub, name("c"), Token(1), Duration::from_secs(9))).await.unwrap();
        let slot: u16 = raw.run(&format!("CLUSTER KEYSLOT {key}")).await;
        let keys: Vec<String> = plain.raw().await.run("KEYS *").await;
        assert_eq!(keys.len(), 3);
        for aux in keys {
            assert_eq!(raw.run::<u16>(&format!("CLUSTER KEYSLOT {aux}")).await, slot, "{aux} beside {key}");
        }
        plain.raw().await.run::<()>("FLUSHALL").await;
    }
}

#[tokio::test]
async fn a_group_that_goes_wakes_its_reader() {
    let server = Server::start().await;
    for (line, kind) in [
        ("XGROUP DESTROY s g", ErrorKind::Missing),
        ("DEL s", ErrorKind::Missing),
        ("FLUSHALL", ErrorKind::Missing),
        ("CLIENT UNBLOCK", ErrorKind::Unavailable),
    ] {
        let redis = std::sync::Arc::new(server.backend().await);
        filled(&redis, 0).await;
        let raw = server.raw().await;
        let reader = redis.clone();
        let read = ReadGroup::new(subscription(), name("c"), 1).block(Duration::from_secs(20));
        let task = tokio::spawn(async move { reader.read_group(&read).await });
        raw.until_blocked(1).await;
        if kind == ErrorKind::Unavailable {
            let clients: String = raw.run("CLIENT LIST").await;
            let blocked = clients.lines().find(|line| line.contains("flags=b")).unwrap();
            let id = blocked.split_once("id=").unwrap().1.split_once(' ').unwrap().0;
            raw.run::<i64>(&format!("CLIENT UNBLOCK {id} ERROR")).await;
        } else {
            raw.run::<redis::Value>(line).await;
        }
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{line}: {error:?}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
        if kind == ErrorKind::Unavailable {
            assert_eq!(error.retry(), Retry::Now);
        }
        raw.run::<()>("FLUSHALL").await;
    }
}

#[tokio::test]
async fn positions_follow_the_pending_list() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 10).await;
    deliver(&redis, "c", 8).await;
    let counts = redis.capabilities().counts_entries;
    let at = |ms| Position::at(id(ms));
    let ahead = |top, holes: &[u64]| SettledAhead::new(id(top), holes.iter().copied().map(id));

    let answer = acked(&redis, [3, 5, 99]).await;
    assert_eq!(answer.acked, 2);
    let position = answer.position.unwrap();
    assert_eq!(position.watermark, EntryId::new(0, u64::MAX));
    assert!(
        position.settles(id(3))
            && position.settles(id(5))
            && !position.settles(id(4))
            && !position.settles(id(8))
    );

    let answer = acked(&redis, [1, 2, 8]).await;
    let expected = Position::at(EntryId::new(3, u64::MAX)).with_ahead(ahead(8, &[4, 6, 7]));
    assert_eq!(answer.position, Some(expected));
    assert_eq!(acked(&redis, [1, 8]).await.acked, 0, "acks are idempotent");

    let answer = acked(&redis, [4, 6, 7]).await;
    assert_eq!((answer.acked, answer.position.unwrap().watermark), (3, id(8)), "counted: the last delivered");
    let answer = acked(&redis, []).await;
    assert_eq!(answer.position, Some(at(8).with_ordinal(counts.then_some(8))), "the last delivered");
    assert_eq!(acked(&redis, [2]).await.position.unwrap().watermark, id(8), "none was pending");
    assert_eq!(acked(&redis, [50]).await.position.unwrap().watermark, id(8), "never delivered");
    deliver(&redis, "c", 2).await;
    let answer = acked(&redis, [9, 10, 9]).await;
    assert_eq!((answer.acked, answer.position), (2, Some(at(10).with_ordinal(counts.then_some(10)))));
}

#[tokio::test]
async fn a_long_list_of_holes_is_cut_where_it_stays_true() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 5000).await;
    deliver(&redis, "c", 5000).await;
    // Acks in the thousands, every other entry.
    let answer = acked(&redis, (1..=5000).filter(|n| n % 2 == 0)).await;
    assert_eq!(answer.acked, 2500);
    let position = answer.position.unwrap();
    assert!(!position.ahead.is_empty() && position.ahead.encode().len() < 1024);
    for n in 1..=5000 {
        assert!(!position.settles(id(n)) || n % 2 == 0, "{n} is not settled");
    }
    assert!(position.settles(id(2)) && position.settles(id(20)));
    // Neighbours: an ahead set must not end in a hole.
    let answer = acked(&redis, [1, 3, 7, 9]).await;
    let position = answer.position.unwrap();
    assert!(position.settles(id(4)) && !position.settles(id(5)) && position.settles(id(6)));
}

#[tokio::test]
async fn ids_at_the_edges_of_64_bits() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let big = 1u64 << 63;
    let edges = [
        EntryId::new(0, 1),
        EntryId::new(9, u64::MAX),
        EntryId::new(10, 0),
        EntryId::new(big, big - 1),
        EntryId::new(big, big),
        EntryId::new(u64::MAX - 1, u64::MAX),
        EntryId::new(u64::MAX, 0),
        EntryId::new(u64::MAX, u64::MAX - 1),
        EntryId::MAX,
    ];
    let entries = edges.map(|id| NewEntry::new(fields("v")).with_id(id)).to_vec();
    redis.append(&Append::new(stream("s"), entries)).await.unwrap();
    redis.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    assert_eq!(deliver(&redis, "c", 100).await, edges);
    for (i, &edge) in edges.iter().enumerate() {
        let settle = Settle::new(subscription(), vec![edge], highwater::Epoch(0), name("c"));
        let position = redis.settle(&settle).await.unwrap().position.unwrap();
        let expected = edges.get(i + 1).map_or(edge, |next| next.prev().unwrap());
        assert_eq!(position.watermark, expected);
        assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, expected);
    }
}
