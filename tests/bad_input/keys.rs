//! Redis keys that hold something else. SQLite and memory have no keys that others could use.

use std::time::Duration;

use highwater::{EntryId, Epoch, Error, ErrorKind, Position, backend::*, producer::Producer};

use super::place::*;

/// Every call on a stream and its group, and why it is refused.
async fn stream_calls(place: &Place) -> Vec<(&'static str, Error)> {
    let (b, sub) = (&place.backend, subscription());
    let new = NewEntry::new(fields("v"));
    let trim = |limit| Trim::new(stream(), limit);
    let keep = trim(TrimLimit::Len(0)).keep_from(Some(id(3)));
    let pending = ReadPending::new(sub.clone(), consumer("c"), EntryId::ZERO, 1);
    let settle = Settle::new(sub.clone(), vec![id(1)], Epoch(0), consumer("c"));
    let errors = [
        ("append", b.append(&Append::new(stream(), vec![new])).await.unwrap().remove(0).err()),
        ("trim to a length", b.trim(&trim(TrimLimit::Len(0))).await.err()),
        ("trim by id", b.trim(&trim(TrimLimit::Below(id(3)))).await.err()),
        ("trim and keep", b.trim(&keep).await.err()),
        ("inspect", b.inspect(&Inspect::stream(stream())).await.err()),
        ("inspect the group", b.inspect(&Inspect::subscription(&sub)).await.err()),
        ("read", b.read(&Read::new(stream(), EntryId::ZERO, 1)).await.err()),
        ("read and wait", b.read(&Read::new(stream(), EntryId::ZERO, 1).block(SOON)).await.err()),
        ("ensure_group", b.ensure_group(&EnsureGroup::new(sub.clone(), &Position::default())).await.err()),
        ("read_group", b.read_group(&ReadGroup::new(sub.clone(), consumer("c"), 1)).await.err()),
        ("read_pending", b.read_pending(&pending).await.err()),
        ("claim", b.claim(&Claim::new(sub.clone(), consumer("c"), 1, Duration::ZERO)).await.err()),
        ("ack", b.ack(&Ack::new(sub.clone(), vec![id(1)])).await.err()),
        ("ack of nothing", b.ack(&Ack::new(sub.clone(), vec![]).count(true)).await.err()),
        ("settle", b.settle(&settle).await.err()),
        ("leave", b.leave(&Leave::new(sub.clone(), consumer("c"), Token(1))).await.err()),
        ("remove entries", b.remove(&Removal::Entries(stream(), vec![id(1)])).await.err()),
        ("remove the group", b.remove(&Removal::Group(sub.clone())).await.err()),
        ("remove the stream", b.remove(&Removal::Stream(stream())).await.err()),
    ];
    errors.map(|(call, error)| (call, error.unwrap_or_else(|| panic!("{call} was granted")))).into()
}

#[tokio::test]
async fn g18_a_stream_key_that_holds_something_else_is_refused_and_stays() {
    let place = Place::redis().await;
    for command in [&["SET", "s", "precious"][..], &["RPUSH", "s", "precious"], &["HSET", "s", "f", "v"]] {
        place.redis_cli(&["FLUSHALL"]);
        let heartbeat = Heartbeat::new(subscription(), consumer("other"), Token(1), SOON);
        place.backend.heartbeat(&heartbeat).await.unwrap();
        place.redis_cli(command);
        let before = place.picture().await;
        for (call, error) in stream_calls(&place).await {
            let words = ["holds something", "use another name"];
            assert_told(format!("{command:?}: {call}"), &error, ErrorKind::Invalid, &words);
            assert_eq!(place.picture().await, before, "{command:?}: {call}");
        }
        let producer = Producer::new(stream(), place.stream()).unwrap();
        let error = producer.append(fields("v")).await.unwrap_err();
        assert_told("producer", &error, ErrorKind::Invalid, &["use another name"]);
        producer.close().await.unwrap();
        for way in [Way::Fused, Way::TwoStep] {
            let error = place.refuses(way).await;
            assert_told(format!("{way:?}"), &error, ErrorKind::Invalid, &["use another name"]);
        }
        assert_eq!(place.picture().await, before, "{command:?}");
        // An owner takes an epoch before it looks at the stream; it leaves no checkpoint, and no lease.
        let error = place.refuses(Way::Exclusive).await;
        assert_told("exclusive", &error, ErrorKind::Invalid, &["use another name"]);
        assert_eq!(place.backend.load(&subscription()).await.unwrap(), None);
        let acquire = Acquire::new(subscription(), consumer("next"), SOON);
        assert!(matches!(place.backend.acquire(&acquire).await.unwrap(), Acquired::Owned(_)));
    }
}

#[tokio::test]
async fn g18_a_heartbeat_key_that_holds_something_else_is_refused_and_stays() {
    let place = Place::redis().await;
    place.fill(3).await;
    place.redis_cli(&["SET", HEARTBEATS, "precious"]);
    let before = place.picture().await;
    let (b, sub) = (&place.backend, subscription());
    let errors = [
        ("heartbeat", b.heartbeat(&Heartbeat::new(sub.clone(), consumer("c"), Token(1), SOON)).await.err()),
        ("claim", b.claim(&Claim::new(sub.clone(), consumer("c"), 1, Duration::ZERO)).await.err()),
        ("leave", b.leave(&Leave::new(sub, consumer("c"), Token(1))).await.err()),
        ("consumer", Some(place.refuses(Way::Fused).await)),
        ("consumer over two stores", Some(place.refuses(Way::TwoStep).await)),
    ];
    for (call, error) in errors {
        let error = error.unwrap_or_else(|| panic!("{call} was granted"));
        assert_told(call, &error, ErrorKind::Invalid, &["holds something", HEARTBEATS]);
    }
    assert_eq!(place.picture().await, before);
}
