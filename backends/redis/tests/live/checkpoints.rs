//! The checkpoint store alone.

use std::{sync::Arc, time::Duration};

use highwater::{
    EntryId, Epoch, ErrorKind, IdRange, Incarnation, Position, Result, SettledAhead, backend::*,
};

use crate::{Redis, server::*};

const KEY: &str = "highwater:{s}:checkpoint:1:s:g";
const LONG: Duration = Duration::from_secs(600);

fn to(ms: u64) -> Position {
    Position::at(id(ms))
}

async fn advance(redis: &Redis, epoch: u64, position: Position) -> Result<Advanced> {
    redis.advance(&Advance::new(subscription(), Epoch(epoch), position, name("c"))).await
}

async fn acquire(redis: &Redis, owner: &str, ttl: Duration) -> Acquired {
    redis.acquire(&Acquire::new(subscription(), name(owner), ttl)).await.unwrap()
}

async fn owned(redis: &Redis, owner: &str, ttl: Duration) -> Grant {
    match acquire(redis, owner, ttl).await {
        Acquired::Owned(ownership) => ownership,
        held => panic!("{held:?}"),
    }
}

async fn stored(redis: &Redis) -> Option<highwater::Checkpoint> {
    redis.load(&subscription()).await.unwrap()
}

#[tokio::test]
async fn g3_a_watermark_only_rises() {
    let server = Server::start().await;
    let redis = server.backend().await;
    assert_eq!(stored(&redis).await, None);
    assert_eq!(advance(&redis, 0, to(9)).await.unwrap(), Advanced::new(true, id(9)));
    assert_eq!(advance(&redis, 0, to(10)).await.unwrap(), Advanced::new(true, id(10)), "not by text");
    assert_eq!(advance(&redis, 0, to(9)).await.unwrap(), Advanced::new(false, id(10)));
    let before: Vec<String> = server.raw().await.run(&format!("HGETALL {KEY}")).await;
    assert_eq!(advance(&redis, 0, to(10)).await.unwrap(), Advanced::new(false, id(10)), "idempotent");
    assert_eq!(server.raw().await.run::<Vec<String>>(&format!("HGETALL {KEY}")).await, before);
    let checkpoint = stored(&redis).await.unwrap();
    assert_eq!((checkpoint.epoch, checkpoint.owner), (Epoch(0), Some(name("c"))));
    let time: Vec<u64> = server.raw().await.run("TIME").await;
    assert!(((time[0] + 1) * 1000).abs_diff(checkpoint.updated_at.as_millis()) < 60_000, "the server's time");
}

/// Every pair of positions, merged on the server, must be what the core's rule says.
#[tokio::test]
async fn the_server_merges_by_the_rule_of_the_core() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let max = u64::MAX;
    let range = |a, b| IdRange { first: a, last: b };
    let aheads = [
        SettledAhead::default(),
        SettledAhead::new(id(30), [id(20)]),
        SettledAhead::new(id(30), [id(20), id(25)]),
        SettledAhead::from_ranges(
            EntryId::MAX,
            [range(id(20), id(25)), range(EntryId::new(max - 1, 7), EntryId::new(max, 3))],
        ),
        SettledAhead::from_ranges(EntryId::new(100, max), [range(id(99), EntryId::new(99, max))]),
    ];
    let name = |name: &str| Some(Incarnation::new(name).unwrap());
    let mut positions = Vec::new();
    for watermark in [id(9), id(10), EntryId::new(10, max)] {
        for ahead in &aheads {
            for ordinal in [None, Some(7), Some(max)] {
                for incarnation in [None, name("one"), name("two")] {
                    let position = Position::at(watermark).with_ahead(ahead.clone());
                    positions.push(position.with_ordinal(ordinal).with_incarnation(incarnation));
                }
            }
        }
    }
    let raw = server.raw().await;
    for (i, first) in positions.iter().enumerate() {
        // All pairs would be 18225: each with every seventh is a fair share.
        for second in positions.iter().skip(i % 7).step_by(7) {
            raw.run::<()>(&format!("DEL {KEY}")).await;
            assert!(advance(&redis, 0, first.clone()).await.unwrap().moved);
            assert_eq!(stored(&redis).await.unwrap().position, *first);
            let merged = second.merged_into(first);
            let answer = advance(&redis, 0, second.clone()).await.unwrap();
            assert_eq!(answer.moved, merged.is_some(), "{second:?} into {first:?}");
            assert_eq!(stored(&redis).await.unwrap().position, merged.unwrap_or_else(|| first.clone()));
        }
    }
}

#[tokio::test]
async fn g4_an_older_epoch_is_fenced_everywhere() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let other = server.backend().await;
    let first = owned(&redis, "a", Duration::ZERO).await;
    assert_eq!((first.epoch, first.position), (Epoch(1), None));
    assert_eq!(stored(&redis).await, None, "owned, but never advanced");
    assert!(redis.list(&stream("s")).await.unwrap().is_empty());
    advance(&redis, 1, to(5).with_ordinal(Some(5))).await.unwrap();
    let second = owned(&other, "b", LONG).await;
    assert_eq!((second.epoch, second.position), (Epoch(2), Some(to(5).with_ordinal(Some(5)))));
    let stale = [
        advance(&redis, 1, to(99)).await.map(|_| ()),
        redis.renew(&Renew::new(subscription(), Epoch(1), LONG)).await,
        redis.release(&Release::new(subscription(), Epoch(1))).await,
        redis.settle(&Settle::new(subscription(), vec![], Epoch(1), name("a"))).await.map(|_| ()),
    ];
    for result in stale {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.context("stored")), (ErrorKind::Fenced, Some("2")), "{error:?}");
    }
    assert_eq!(advance(&redis, 3, to(99)).await.unwrap_err().kind(), ErrorKind::Invalid, "never issued");
    assert_eq!(stored(&redis).await.unwrap().position.watermark, id(5));
    match acquire(&redis, "a", LONG).await {
        Acquired::Held { owner, remaining, .. } => {
            assert_eq!(owner, Some(name("b")));
            assert!(remaining > Duration::from_secs(500) && remaining <= LONG);
        }
        owned => panic!("{owned:?}"),
    }
    assert_eq!(owned(&redis, "b", LONG).await.epoch, Epoch(3), "one's own lease is no obstacle");
    assert_eq!(
        advance(&other, 2, to(6)).await.unwrap_err().kind(),
        ErrorKind::Fenced,
        "the same name, an older life"
    );
    redis.release(&Release::new(subscription(), Epoch(3))).await.unwrap();
    assert_eq!(owned(&redis, "a", Duration::ZERO).await.epoch, Epoch(4));
    advance(&redis, 4, to(7)).await.expect("a lease that ran out, and nobody followed");
    redis.renew(&Renew::new(subscription(), Epoch(4), LONG)).await.unwrap();
    assert!(matches!(acquire(&redis, "b", LONG).await, Acquired::Held { .. }), "renewed");
}

#[tokio::test]
async fn without_a_record_no_epoch_but_zero_was_issued() {
    let server = Server::start().await;
    let redis = server.backend().await;
    assert_eq!(advance(&redis, 1, to(1)).await.unwrap_err().kind(), ErrorKind::Invalid);
    let renew = Renew::new(subscription(), Epoch(0), LONG);
    assert_eq!(redis.renew(&renew).await.unwrap_err().kind(), ErrorKind::Fenced);
    let release = Release::new(subscription(), Epoch(0));
    assert_eq!(redis.release(&release).await.unwrap_err().kind(), ErrorKind::Fenced);
    let keys: Vec<String> = server.raw().await.run("KEYS *").await;
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn epochs_are_full_64_bit_numbers() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    advance(&redis, 0, to(1)).await.unwrap();
    // Two that are the same number to Lua.
    raw.run::<i64>(&format!("HSET {KEY} epoch 18446744073709551613")).await;
    assert_eq!(advance(&redis, u64::MAX - 3, to(2)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(advance(&redis, u64::MAX - 1, to(2)).await.unwrap_err().kind(), ErrorKind::Invalid);
    advance(&redis, u64::MAX - 2, to(2)).await.unwrap();
    assert_eq!(owned(&redis, "a", Duration::ZERO).await.epoch, Epoch(u64::MAX - 1));
    raw.run::<i64>(&format!("HSET {KEY} epoch 9999")).await;
    assert_eq!(owned(&redis, "a", Duration::ZERO).await.epoch, Epoch(10_000));
    raw.run::<i64>(&format!("HSET {KEY} epoch 9223372036854775807")).await;
    assert_eq!(owned(&redis, "a", Duration::MAX).await.epoch, Epoch(1 << 63));
    assert!(matches!(acquire(&redis, "b", Duration::MAX).await, Acquired::Held { .. }));
}

#[tokio::test]
async fn only_a_reset_moves_back_and_it_takes_an_epoch() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let reset = |ms| ResetCheckpoint::new(subscription(), to(ms));
    assert_eq!(redis.reset(&reset(50)).await.unwrap(), Epoch(1));
    advance(&redis, 1, to(60)).await.unwrap();
    assert_eq!(redis.reset(&reset(10).expect(Epoch(0))).await.unwrap_err().kind(), ErrorKind::Fenced);
    owned(&redis, "a", LONG).await;
    let error = redis.reset(&reset(10)).await.unwrap_err();
    assert_eq!((error.kind(), error.context("owner")), (ErrorKind::Busy, Some("a")));
    assert_eq!(stored(&redis).await.unwrap().position, to(60));
    assert_eq!(redis.reset(&reset(10).force(true).expect(Epoch(2))).await.unwrap(), Epoch(3));
    let checkpoint = stored(&redis).await.unwrap();
    assert_eq!((checkpoint.position, checkpoint.epoch, checkpoint.owner), (to(10), Epoch(3), None));
    assert_eq!(advance(&redis, 2, to(99)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(owned(&redis, "b", LONG).await.epoch, Epoch(4), "the lease that stood is over");
}

#[tokio::test]
async fn g18_what_cannot_be_read_is_corrupt_in_every_method_and_stays() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    let spoil = [
        "v 2",
        "v x",
        "v 0",
        "watermark x-y",
        "watermark 18446744073709551616-0",
        "ahead garbage",
        "ahead 5-0",
        "ahead 5-0..4-0,>9-0",
        "ahead 5-0,5-0,>9-0",
        "ahead 5-0,>5-0",
        "ahead +1-0,>9-0",
        "ordinal -1",
        "epoch x",
        "epoch 18446744073709551616",
        "updated_at never",
        "lease_until soon",
        "incarnation a,b",
        "owner a\u{85}b",
    ];
    for garbage in spoil
        .iter()
        .map(|s| format!("HSET {KEY} {s}"))
        .chain([format!("SET {KEY} text"), format!("HSET {KEY} some thing")])
    {
        raw.run::<()>(&format!("DEL {KEY}")).await;
        if !garbage.contains("some thing") {
            advance(&redis, 0, to(1)).await.unwrap();
        }
        // A comma stands for a space in the table.
        let words: Vec<String> = garbage.split(' ').map(|word| word.replace(',', " ")).collect();
        raw.words::<redis::Value>(&words).await;
        let before: redis::Value = raw.run(&format!("DUMP {KEY}")).await;
        let results = [
            redis.load(&subscription()).await.map(|_| ()),
            redis.list(&stream("s")).await.map(|_| ()),
            redis.acquire(&Acquire::new(subscription(), name("a"), LONG)).await.map(|_| ()),
            redis.renew(&Renew::new(subscription(), Epoch(0), LONG)).await,
            redis.release(&Release::new(subscription(), Epoch(0))).await,
            advance(&redis, 0, to(2)).await.map(|_| ()),
            redis.reset(&ResetCheckpoint::new(subscription(), to(2)).force(true)).await.map(|_| ()),
            redis.settle(&Settle::new(subscription(), ids([1]), Epoch(0), name("a"))).await.map(|_| ()),
        ];
        for (i, result) in results.into_iter().enumerate() {
            let kind = result.map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::Corrupt), "{garbage}, method {i}");
        }
        assert_eq!(raw.run::<redis::Value>(&format!("DUMP {KEY}")).await, before, "{garbage}");
    }
    assert_eq!(acked(&redis, [1]).await.acked, 1, "the refused settles acked nothing");
}

#[tokio::test]
async fn concurrent_writers_leave_the_highest() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    let tasks: Vec<_> = (0..16u64)
        .map(|i| {
            let redis = redis.clone();
            tokio::spawn(async move {
                let mut last = EntryId::ZERO;
                for n in 0..50 {
                    let seen = advance(&redis, 0, to(1 + (n * 7 + i * 13) % 500)).await.unwrap().watermark;
                    assert!(seen >= last, "it went back");
                    last = seen;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let highest = (0..16u64).flat_map(|i| (0..50).map(move |n| 1 + (n * 7 + i * 13) % 500)).max().unwrap();
    assert_eq!(stored(&redis).await.unwrap().position, to(highest));
}

#[tokio::test]
async fn concurrent_owners_get_different_epochs() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let redis = redis.clone();
            tokio::spawn(async move { acquire(&redis, &format!("o{i}"), LONG).await })
        })
        .collect();
    let mut owners = 0;
    for task in tasks {
        owners += usize::from(matches!(task.await.unwrap(), Acquired::Owned(_)));
    }
    assert_eq!(owners, 1);
}

#[tokio::test]
async fn all_checkpoints_of_a_stream_are_listed() {
    let server = Server::start().await;
    let redis = server.backend().await;
    for group in ["a", "b", "c"] {
        let sub = highwater::Subscription::new("s", group).unwrap();
        redis.advance(&Advance::new(sub, Epoch(0), to(3), name("x"))).await.unwrap();
    }
    let other = highwater::Subscription::new("t", "a").unwrap();
    redis.advance(&Advance::new(other, Epoch(0), to(4), name("x"))).await.unwrap();
    let list = redis.list(&stream("s")).await.unwrap();
    let groups: Vec<_> = list.iter().map(|(group, c)| (group.as_str(), c.position.watermark)).collect();
    assert_eq!(groups, [("a", id(3)), ("b", id(3)), ("c", id(3))]);
    assert!(redis.list(&stream("absent")).await.unwrap().is_empty());
}
