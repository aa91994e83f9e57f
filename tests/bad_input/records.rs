//! Checkpoints that cannot be read. Those in memory cannot be spoiled: nobody but the library can reach them.

use std::future::pending;

use highwater::{Builder, Consumer, Delivery, Epoch, Error, ErrorKind, Position, backend::*};
use sqlx::AssertSqlSafe;
use tokio::time::timeout;

use super::place::*;
use crate::support::eventually;

/// A part of a record, what somebody wrote into it, and what the error must say of it.
const SPOILED: &[(&str, &[u8], &str)] = &[
    ("version", b"2", "upgrade before you go on: version=`2`, supported=`1`"),
    ("version", b"4294967295", "upgrade"),
    ("version", b"", "no version"),
    ("version", b"0", "no version"),
    ("version", b"one", "version=`one`"),
    ("version", b"+1", "no version"),
    ("watermark", b"yesterday", "watermark=`yesterday`"),
    ("watermark", b"7-", "watermark=`7-`"),
    ("watermark", b"18446744073709551616-0", "watermark"),
    ("watermark", b"", "watermark"),
    ("watermark", b"\xff", ""),
    ("ahead", b"everything", "ahead=`everything`"),
    ("ahead", b"9-0 >3-0", "ahead"),
    ("ahead", b"2-0 >", "ahead"),
    ("ordinal", b"seven", "ordinal=`seven`"),
    ("ordinal", b"-1", "ordinal=`-1`"),
    ("ordinal", b"+1", "ordinal=`+1`"),
    ("incarnation", b"two words", "name"),
    ("epoch", b"", "epoch"),
    ("epoch", b"-1", "epoch=`-1`"),
    ("epoch", b"18446744073709551616", "epoch"),
    ("owner", b"a\nb", "name"),
    ("lease_owner", b"a\nb", ""),
    ("updated_at", b"now", "updated_at=`now`"),
];

impl Place {
    async fn spoil(&self, part: &str, value: &[u8]) {
        if self.name() == "redis" {
            let part = if part == "version" { "v" } else { part };
            let command = [b"HSET", CHECKPOINT.as_bytes(), part.as_bytes(), value];
            let reply = self.server().connect().unwrap().run(&command).unwrap();
            assert_eq!(reply.int(), Some(0), "{part} was there");
        } else {
            // A text that is no UTF-8 is one that SQLite takes.
            let update = format!("UPDATE highwater_checkpoint SET {part} = CAST(? AS TEXT)");
            let update = sqlx::query(AssertSqlSafe(update)).bind(value).execute(&mut self.sql().await).await;
            assert_eq!(update.unwrap().rows_affected(), 1);
        }
    }

    /// The checkpoints, as they are stored.
    async fn records(&self) -> Vec<String> {
        self.picture().await.into_iter().filter(|line| line.contains("checkpoint:")).collect()
    }

    async fn restore(&self) {
        self.backend.remove(&Removal::Stream(stream())).await.unwrap();
        if self.name() == "redis" {
            self.redis_cli(&["FLUSHALL"]);
        } else {
            sqlx::query("DELETE FROM highwater_checkpoint").execute(&mut self.sql().await).await.unwrap();
        }
        self.fill(3).await;
    }
}

/// Every call on a record, and why it is refused.
async fn record_calls(place: &Place) -> Vec<(&'static str, Error)> {
    let (b, sub) = (&place.backend, subscription());
    let advance = Advance::new(sub.clone(), Epoch(0), Position::at(id(3)), consumer("c"));
    let reset = ResetCheckpoint::new(sub.clone(), Position::default()).force(true);
    let settle = Settle::new(sub.clone(), vec![id(2)], Epoch(0), consumer("c"));
    let errors = [
        ("load", b.load(&sub).await.err()),
        ("list", b.list(&stream()).await.err()),
        ("acquire", b.acquire(&Acquire::new(sub.clone(), consumer("c"), SOON)).await.err()),
        ("renew", b.renew(&Renew::new(sub.clone(), Epoch(0), SOON)).await.err()),
        ("release", b.release(&Release::new(sub.clone(), Epoch(0))).await.err()),
        ("advance", b.advance(&advance).await.err()),
        ("reset", b.reset(&reset).await.err()),
        ("settle", b.settle(&settle).await.err()),
    ];
    errors.map(|(call, error)| (call, error.unwrap_or_else(|| panic!("{call} was granted")))).into()
}

async fn assert_corrupt(place: &Place, case: &str, words: &[&str]) {
    // One entry is pending: a settle that acked it first would show.
    let read = ReadGroup::new(subscription(), consumer("c"), 1);
    assert_eq!(place.backend.read_group(&read).await.unwrap().len(), 1);
    let before = place.picture().await;
    for (call, error) in record_calls(place).await {
        assert_told(format!("{case}: {call}"), &error, ErrorKind::Corrupt, words);
        assert_eq!(place.picture().await, before, "{case}: {call}");
    }
    for way in WAYS {
        assert_told(format!("{case}: {way:?}"), &place.refuses(way).await, ErrorKind::Corrupt, words);
        assert_eq!(place.picture().await, before, "{case}: {way:?}");
    }
}

#[tokio::test]
async fn g18_a_checkpoint_that_cannot_be_read_is_corrupt_for_every_call_and_stays() {
    for place in [Place::redis().await, Place::sqlite().await] {
        for (part, value, says) in SPOILED {
            place.restore().await;
            place.spoil(part, value).await;
            let case = format!("{} {part}=`{}`", place.name(), value.escape_ascii());
            assert_corrupt(&place, &case, &[says]).await;
        }
    }
}

#[tokio::test]
async fn g18_a_checkpoint_key_that_holds_something_else_is_corrupt_and_stays() {
    let place = Place::redis().await;
    for (key, value) in [
        (CHECKPOINT, &["SET", CHECKPOINT, "precious"][..]),
        (CHECKPOINT, &["RPUSH", CHECKPOINT, "precious"]),
        (CHECKPOINT, &["XADD", CHECKPOINT, "1-0", "f", "v"]),
        (CHECKPOINT, &["HSET", CHECKPOINT, "precious", "value"]),
    ] {
        place.restore().await;
        place.redis_cli(&["DEL", key]);
        place.redis_cli(value);
        assert_corrupt(&place, &format!("{value:?}"), &["look at the record, then restore it"]).await;
    }
}

#[tokio::test]
async fn g18_an_index_of_checkpoints_that_holds_something_else_is_corrupt_and_stays() {
    let place = Place::redis().await;
    place.fill(3).await;
    place.redis_cli(&["DEL", GROUPS]);
    place.redis_cli(&["SET", GROUPS, "precious"]);
    let before = place.picture().await;
    // A load needs no index.
    for (call, error) in record_calls_but_load(&place).await {
        assert_told(call, &error, ErrorKind::Corrupt, &["look at the record, then restore it"]);
    }
    assert_eq!(place.picture().await, before);

    place.redis_cli(&["DEL", GROUPS]);
    place.redis_cli(&["SADD", GROUPS, "g", "no\nname"]);
    let before = place.picture().await;
    let error = place.backend.list(&stream()).await.unwrap_err();
    assert_told("a group without a name", &error, ErrorKind::Corrupt, &["look at the record", GROUPS]);
    assert_eq!(place.picture().await, before);
}

async fn record_calls_but_load(place: &Place) -> Vec<(&'static str, Error)> {
    let (b, sub) = (&place.backend, subscription());
    let advance = Advance::new(sub.clone(), Epoch(0), Position::at(id(3)), consumer("c"));
    vec![
        ("list", b.list(&stream()).await.unwrap_err()),
        ("acquire", b.acquire(&Acquire::new(sub.clone(), consumer("c"), SOON)).await.unwrap_err()),
        ("advance", b.advance(&advance).await.unwrap_err()),
        ("reset", b.reset(&ResetCheckpoint::new(sub, Position::default())).await.unwrap_err()),
    ]
}

/// Runs a consumer, spoils its checkpoint, and gives it one more entry to settle.
async fn spoiled_while_it_runs<S: StreamBackend, C: CheckpointBackend>(
    place: &Place,
    builder: Builder<S, C>,
) -> Error {
    let handler = |_: Delivery| async { Ok::<_, std::io::Error>(()) };
    let run = tokio::spawn(builder.build().unwrap().run(handler, pending::<()>()));
    let settled = async || {
        let checkpoint = place.backend.load(&subscription()).await.unwrap();
        checkpoint.is_some_and(|checkpoint| checkpoint.position.watermark == id(3))
    };
    eventually("all is settled", SOON, settled).await;
    place.spoil("epoch", b"one").await;
    let before = place.records().await;
    let new = NewEntry::new(fields("v")).with_id(id(4));
    place.backend.append(&Append::new(stream(), vec![new])).await.unwrap();
    let error = timeout(SOON, run).await.expect("it does not go on for ever").unwrap().unwrap_err();
    assert_eq!(place.records().await, before, "{}", place.name());
    error
}

#[tokio::test]
async fn g18_a_checkpoint_that_is_spoiled_while_a_consumer_runs_ends_it_and_stays() {
    for place in [Place::redis().await, Place::sqlite().await] {
        let fused = || Consumer::fused(subscription(), place.backend.clone());
        let two_step = || Consumer::builder(subscription(), place.stream(), place.store());
        for way in WAYS {
            place.restore().await;
            let error = match way {
                Way::Fused => spoiled_while_it_runs(&place, fused()).await,
                Way::TwoStep => spoiled_while_it_runs(&place, two_step()).await,
                Way::Exclusive => spoiled_while_it_runs(&place, fused().exclusive()).await,
            };
            let case = format!("{} {way:?}", place.name());
            assert_told(&case, &error, ErrorKind::Corrupt, &["epoch=`one`", "look at the record"]);
            if way == Way::Fused {
                let inspect = Inspect::subscription(&subscription());
                let group = place.backend.inspect(&inspect).await.unwrap().unwrap().group.unwrap();
                assert_eq!(group.pending, 1, "{case}: what could not be settled was not acked");
            }
        }
    }
}

/// The record of one subscription says nothing about the others on the stream.
#[tokio::test]
async fn g18_a_corrupt_checkpoint_does_not_stop_another_group() {
    for place in [Place::redis().await, Place::sqlite().await] {
        place.fill(3).await;
        place.spoil("watermark", b"yesterday").await;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let stop = std::sync::Mutex::new(Some(stop));
        let handler = move |delivery: Delivery| {
            let last = delivery.id() == id(3);
            let stop = stop.lock().unwrap().take_if(|_| last);
            async move { stop.map_or(Ok(()), |stop| stop.send(())).map_err(|()| "nobody waits") }
        };
        let other = highwater::Subscription::new("s", "other").unwrap();
        let consumer = Consumer::fused(other, place.backend.clone()).build().unwrap();
        let run = consumer.run(handler, async { drop(stopped.await) });
        let report = timeout(SOON, run).await.unwrap().unwrap();
        assert_eq!((report.settled, report.watermark), (3, Some(id(3))), "{}", place.name());
    }
}
