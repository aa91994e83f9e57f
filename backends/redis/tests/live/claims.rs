//! Heartbeats, claims, leaving.

use std::time::Duration;

use highwater::{EntryId, ErrorKind, Position, backend::*, clock::Clock};

use crate::{Redis, server::*};

const LONG: Duration = Duration::from_secs(600);

async fn beat(redis: &Redis, consumer: &str, token: u64, ttl: Duration) -> highwater::Result<Beat> {
    redis.heartbeat(&Heartbeat::new(subscription(), name(consumer), Token(token), ttl)).await
}

async fn claim(redis: &Redis, consumer: &str, limit: usize, min_idle: Duration) -> Vec<EntryId> {
    let claimed = redis.claim(&Claim::new(subscription(), name(consumer), limit, min_idle)).await.unwrap();
    claimed.entries.iter().map(|entry| entry.id).collect()
}

async fn consumers(server: &Server) -> usize {
    let consumers: Vec<redis::Value> = server.raw().await.run("XINFO CONSUMERS s g").await;
    consumers.len()
}

#[tokio::test]
async fn a_heartbeat_knows_whether_it_stood() {
    let server = Server::start().await;
    let redis = server.backend().await;
    assert_eq!(beat(&redis, "c", 1, LONG).await.unwrap(), Beat::Fresh);
    assert_eq!(beat(&redis, "c", 1, LONG).await.unwrap(), Beat::Unbroken);
    let error = beat(&redis, "c", 2, LONG).await.unwrap_err();
    assert_eq!((error.kind(), error.context("consumer")), (ErrorKind::Busy, Some("c")));
    assert_eq!(
        beat(&redis, "c", 1, Duration::ZERO).await.unwrap(),
        Beat::Unbroken,
        "the other changed nothing"
    );
    assert_eq!(beat(&redis, "c", 1, Duration::ZERO).await.unwrap(), Beat::Fresh, "it ran out");
    assert_eq!(beat(&redis, "c", 2, LONG).await.unwrap(), Beat::Fresh, "the name is free");
    assert_eq!(beat(&redis, "c", u64::MAX, Duration::MAX).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(beat(&redis, "d", u64::MAX, Duration::MAX).await.unwrap(), Beat::Fresh);
    assert_eq!(beat(&redis, "d", u64::MAX, Duration::MAX).await.unwrap(), Beat::Unbroken);
    assert_eq!(
        beat(&redis, "d", u64::MAX - 1, LONG).await.unwrap_err().kind(),
        ErrorKind::Busy,
        "tokens are text"
    );
}

#[tokio::test]
async fn g13_the_living_keep_and_the_dead_give() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 6).await;
    for consumer in ["live", "dead", "foreign"] {
        deliver(&redis, consumer, 2).await;
    }
    beat(&redis, "live", 1, LONG).await.unwrap();
    beat(&redis, "dead", 2, Duration::ZERO).await.unwrap();
    assert_eq!(claim(&redis, "me", 10, LONG).await, ids([3, 4]), "the dead one's, whatever their idle time");
    assert_eq!(consumers(&server).await, 3, "live, foreign, me");
    assert_eq!(claim(&redis, "me", 10, Duration::ZERO).await, ids([5, 6]), "the foreign one's by idle time");
    assert!(claim(&redis, "me", 10, Duration::ZERO).await.is_empty(), "never its own, never the living's");
    assert_eq!(
        claim(&redis, "live", 10, Duration::ZERO).await,
        ids(3..=6),
        "one without heartbeat is foreign"
    );
    let own = redis.read_pending(&ReadPending::new(subscription(), name("live"), id(0), 10)).await.unwrap();
    assert_eq!(
        own.iter().map(|p| (p.id.ms, p.deliveries)).collect::<Vec<_>>(),
        [(1, 2), (2, 2), (3, 4), (4, 4), (5, 4), (6, 4)]
    );
}

#[tokio::test]
async fn a_claim_goes_on_where_it_stopped() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 30).await;
    for round in 0..30 {
        deliver(&redis, ["dead", "gone", "foreign"][round % 3], 1).await;
    }
    beat(&redis, "dead", 1, Duration::ZERO).await.unwrap();
    beat(&redis, "gone", 2, Duration::ZERO).await.unwrap();
    let mut request = Claim::new(subscription(), name("me"), 4, Duration::ZERO);
    let mut seen = Vec::new();
    loop {
        let claimed = redis.claim(&request).await.unwrap();
        assert!(claimed.entries.len() <= 4);
        assert!(claimed.entries.iter().all(|entry| entry.deliveries == 2 && entry.fields.is_some()));
        seen.extend(claimed.entries.iter().map(|entry| entry.id));
        match claimed.next {
            Some(next) => request = request.from(next),
            None => break,
        }
    }
    assert_eq!(seen, ids(1..=30), "each once, in order");
    assert_eq!(consumers(&server).await, 2, "the dead are removed, the foreign one stays");
    let beats: Vec<String> = server.raw().await.run("HKEYS highwater:{s}:heartbeats:1:s:g").await;
    assert!(beats.is_empty(), "{beats:?}");
}

#[tokio::test]
async fn an_idle_entry_behind_many_fresh_ones_is_not_passed_over() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 1520).await;
    deliver(&redis, "foreign", 1500).await;
    deliver(&redis, "dead", 20).await;
    beat(&redis, "dead", 1, Duration::ZERO).await.unwrap();
    server.raw().await.run::<Vec<String>>("XCLAIM s g foreign 0 1200-0 IDLE 3600000 JUSTID").await;
    let mut request = Claim::new(subscription(), name("me"), 10, LONG);
    let mut seen = Vec::new();
    loop {
        let claimed = redis.claim(&request).await.unwrap();
        seen.extend(claimed.entries.iter().map(|entry| entry.id));
        let Some(next) = claimed.next else { break };
        request = request.from(next);
    }
    assert_eq!(seen, ids([1200].into_iter().chain(1501..=1520)));
}

#[tokio::test]
async fn g7_a_deleted_entry_is_claimed_without_fields_and_stays_pending() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    deliver(&redis, "dead", 3).await;
    beat(&redis, "dead", 1, Duration::ZERO).await.unwrap();
    redis.remove(&Removal::Entries(stream("s"), ids([2]))).await.unwrap();
    let claimed = redis.claim(&Claim::new(subscription(), name("me"), 10, LONG)).await.unwrap();
    let parts: Vec<_> = claimed.entries.iter().map(|entry| (entry.id, entry.fields.is_some())).collect();
    assert_eq!(parts, [(id(1), true), (id(2), false), (id(3), true)]);
    assert_eq!(claimed.next, None);
    assert_eq!(claim(&redis, "other", 10, LONG).await, ids([2]), "it comes again until it is acked");
    let answer = acked(&redis, [1, 2, 3]).await;
    assert_eq!((answer.acked, answer.position.unwrap().watermark), (3, id(3)));
    assert!(claim(&redis, "other", 10, LONG).await.is_empty());
}

#[tokio::test]
async fn who_leaves_lets_go() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 4).await;
    deliver(&redis, "c", 2).await;
    beat(&redis, "c", 1, LONG).await.unwrap();
    let leave = |consumer, token| Leave::new(subscription(), name(consumer), Token(token));
    assert_eq!(redis.leave(&leave("c", 9)).await.unwrap().pending, 2);
    assert!(claim(&redis, "me", 10, LONG).await.is_empty(), "another process does not end this life");
    assert_eq!(redis.leave(&leave("c", 1)).await.unwrap().pending, 2);
    assert_eq!(claim(&redis, "me", 10, LONG).await, ids([1, 2]), "at once");
    assert_eq!(consumers(&server).await, 1);
    acked(&redis, [1, 2]).await;
    beat(&redis, "me", 1, LONG).await.unwrap();
    assert_eq!(redis.leave(&leave("me", 1)).await.unwrap().pending, 0);
    assert_eq!(consumers(&server).await, 0);
    deliver(&redis, "never", 1).await;
    assert_eq!(redis.leave(&leave("never", 1)).await.unwrap().pending, 1);
    assert_eq!(claim(&redis, "me", 10, LONG).await, ids([3]), "also without a heartbeat before");
    redis.remove(&Removal::Group(subscription())).await.unwrap();
    assert_eq!(redis.leave(&leave("c", 1)).await.unwrap().pending, 0, "no group is no error");
}

#[tokio::test]
async fn a_claim_while_consumers_come_and_go_takes_each_entry_once() {
    let server = Server::start().await;
    let redis = std::sync::Arc::new(server.backend().await);
    filled(&redis, 400).await;
    deliver(&redis, "dead", 400).await;
    beat(&redis, "dead", 1, Duration::ZERO).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|i| {
            let redis = redis.clone();
            tokio::spawn(async move {
                beat(&redis, &format!("c{i}"), i, LONG).await.unwrap();
                let mut mine = Vec::new();
                loop {
                    let some = claim(&redis, &format!("c{i}"), 7, LONG).await;
                    if some.is_empty() {
                        return mine;
                    }
                    mine.extend(some);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort();
    assert_eq!(all, ids(1..=400));
}

#[tokio::test]
async fn g6_a_lost_group_is_made_again_at_the_checkpoint() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 100).await;
    deliver(&redis, "c", 50).await;
    let settle = Settle::new(subscription(), ids(1..=50), highwater::Epoch(0), name("c")).count(true);
    redis.settle(&settle).await.unwrap();
    server.raw().await.run::<i64>("XGROUP DESTROY s g").await;
    let error = redis.read_group(&ReadGroup::new(subscription(), name("c"), 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    let position: Position = redis.load(&subscription()).await.unwrap().unwrap().position;
    assert!(redis.ensure_group(&EnsureGroup::new(subscription(), &position)).await.unwrap());
    assert_eq!(deliver(&redis, "c", 100).await, ids(51..=100));
}

#[tokio::test]
async fn g13_of_a_crowd_that_looks_for_the_dead_one_looks_and_the_next_look_is_not_late() {
    const WITHIN: Duration = Duration::from_millis(300);
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 4).await;
    let looks = async || {
        let stats: String = server.raw().await.run("INFO commandstats").await;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hgetall:calls=")).unwrap_or("0,");
        line.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let look = async |who: &str| {
        let claim = Claim::new(subscription(), name(who), 10, LONG).unless_within(WITHIN);
        let claimed = redis.claim(&claim).await.unwrap();
        claimed.entries.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    let crowd: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
    for (who, token) in crowd.iter().zip(1..) {
        beat(&redis, who, token, LONG).await.unwrap();
    }
    deliver(&redis, "c1", 2).await;
    let before = looks().await;
    for who in &crowd {
        assert!(look(who).await.is_empty());
    }
    assert!(looks().await - before < 25, "one looks for all");
    // Who leaves something says so.
    redis.leave(&Leave::new(subscription(), name("c1"), Token(2))).await.unwrap();
    assert_eq!(look("c2").await, ids([1, 2]), "at once");
    deliver(&redis, "c3", 2).await;
    assert!(look("c4").await.is_empty());
    beat(&redis, "c3", 4, Duration::ZERO).await.unwrap();
    let died = Clock::started();
    eventually(async || look("c4").await == ids([3, 4])).await;
    assert!(died.elapsed() < WITHIN + Duration::from_secs(1), "{:?}", died.elapsed());
    for (who, token) in crowd.iter().zip(1..) {
        redis.ack(&Ack::new(subscription(), ids(1..=4))).await.unwrap();
        redis.leave(&Leave::new(subscription(), name(who), Token(token))).await.unwrap();
    }
    let left: u64 = server.raw().await.run("EXISTS highwater:{s}:heartbeats:1:s:g").await;
    assert_eq!(left, 0, "the last one leaves nothing behind");
}

#[tokio::test]
async fn the_living_are_counted() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let alive = async || {
        let inspect = Inspect::subscription(&subscription()).count_alive(true);
        redis.inspect(&inspect).await.unwrap().unwrap().group.unwrap().consumers_alive.unwrap()
    };
    filled(&redis, 2).await;
    deliver(&redis, "foreign", 1).await;
    assert_eq!(alive().await, 0, "one of other software keeps no heartbeat");
    beat(&redis, "a", 1, LONG).await.unwrap();
    beat(&redis, "b", u64::MAX, Duration::MAX).await.unwrap();
    beat(&redis, "c", 3, Duration::ZERO).await.unwrap();
    assert_eq!(alive().await, 2);
    redis.leave(&Leave::new(subscription(), name("a"), Token(1))).await.unwrap();
    assert_eq!(alive().await, 1);
    assert!(redis.inspect(&Inspect::stream(stream("s"))).await.unwrap().unwrap().group.is_none());
    server.raw().await.run::<()>("SET highwater:{s}:heartbeats:1:s:g text").await;
    let inspect = Inspect::subscription(&subscription()).count_alive(true);
    let error = redis.inspect(&inspect).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(redis.inspect(&Inspect::stream(stream("s"))).await.unwrap().is_some());
}
