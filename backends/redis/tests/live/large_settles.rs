//! Settles of so many ids that their acks are a command of their own.

use std::time::Duration;

use highwater::{Epoch, ErrorKind, backend::*, clock::Clock};

use crate::{Redis, server::*};

const MANY: u64 = 1_500;

async fn settle(redis: &Redis, epoch: u64, of: impl IntoIterator<Item = u64>) -> highwater::Result<Settled> {
    redis.settle(&Settle::new(subscription(), ids(of), Epoch(epoch), name("c"))).await
}

async fn delivered(server: &Server) -> Redis {
    let redis = server.backend().await;
    filled(&redis, MANY).await;
    deliver(&redis, "c", MANY as usize).await;
    redis
}

async fn pending(redis: &Redis) -> u64 {
    redis.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap().group.unwrap().pending
}

/// How many transactions took place.
async fn transactions(server: &Server) -> usize {
    let stats: String = server.raw().await.run("INFO commandstats").await;
    let calls = stats.split("cmdstat_exec:calls=").nth(1).and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn it_is_a_transaction_that_answers_and_stores_what_the_script_does() {
    let all: fn(u64) -> bool = |_| true;
    let cases =
        [("all", all), ("holes", |n| n % 500 != 7), ("not the first and the last", |n| n > 1 && n < MANY)];
    for (case, is_settled) in cases {
        let (large, small) = (Server::start().await, Server::start().await);
        let (one, other) = (delivered(&large).await, delivered(&small).await);
        let settled: Vec<_> = (1..=MANY).rev().filter(|&n| is_settled(n)).collect();
        let at_once = settle(&one, 0, settled.clone()).await.unwrap();
        assert_eq!((at_once.acked, transactions(&large).await), (settled.len() as u64, 1), "{case}");
        let mut last = None;
        for few in settled.rchunks(100) {
            last = settle(&other, 0, few.iter().copied()).await.unwrap().position;
        }
        assert_eq!((at_once.position, transactions(&small).await), (last, 0), "{case}");
        let stored = async |redis: &Redis| redis.load(&subscription()).await.unwrap().unwrap().position;
        assert_eq!(stored(&one).await, stored(&other).await, "{case}");
        assert_eq!(settle(&one, 0, settled).await.unwrap().acked, 0, "{case}: idempotent");
    }
}

#[tokio::test]
async fn g4_that_of_a_zombie_acks_nothing() {
    let server = Server::start().await;
    let redis = delivered(&server).await;
    redis.acquire(&Acquire::new(subscription(), name("new"), Duration::from_secs(60))).await.unwrap();
    let error = settle(&redis, 0, 1..=MANY).await.unwrap_err();
    assert_eq!((error.kind(), pending(&redis).await), (ErrorKind::Fenced, MANY));
    assert_eq!(settle(&redis, 7, 1..=MANY).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!((pending(&redis).await, transactions(&server).await), (MANY, 0));
    assert_eq!(settle(&redis, 1, 1..=MANY).await.unwrap().acked, MANY);
}

/// Whichever comes first: an old epoch that is settled after the reset would ack what the reset is about to give out again.
#[tokio::test]
async fn g4_beside_a_reset_it_acks_all_or_nothing() {
    let server = Server::start().await;
    let redis = delivered(&server).await;
    let mut fenced = 0;
    for epoch in 0..60 {
        let reset = ResetCheckpoint::new(subscription(), highwater::Position::default()).force(true);
        let (settled, reset) = tokio::join!(settle(&redis, epoch, 1..=MANY), async {
            // Each round it comes a little later, so that it comes between whichever two steps there are.
            Clock::new().sleep(Duration::from_micros(epoch * 20)).await;
            redis.reset(&reset).await
        });
        assert_eq!(reset.unwrap(), Epoch(epoch + 1));
        match settled {
            Ok(settled) => assert_eq!((settled.acked, pending(&redis).await), (MANY, 0)),
            Err(error) => {
                assert_eq!((error.kind(), pending(&redis).await), (ErrorKind::Fenced, MANY), "{error}");
                fenced += 1;
            }
        }
        redis.remove(&Removal::Group(subscription())).await.unwrap();
        redis.ensure_group(&EnsureGroup::new(subscription(), &highwater::Position::default())).await.unwrap();
        deliver(&redis, "c", MANY as usize).await;
    }
    println!("{fenced} of 60 came too late");
}

#[tokio::test]
async fn what_cannot_be_advanced_is_not_acked() {
    let server = Server::start().await;
    let redis = delivered(&server).await;
    settle(&redis, 0, [1]).await.unwrap();
    let raw = server.raw().await;
    // The first one comes before anything is watched that changes.
    for (spoil, mend) in [
        ("SET highwater:{s}:groups:1:s text", "DEL highwater:{s}:groups:1:s"),
        ("HSET highwater:{s}:checkpoint:1:s:g v 2", "HSET highwater:{s}:checkpoint:1:s:g v 1"),
        ("HSET highwater:{s}:checkpoint:1:s:g ahead ?", "HSET highwater:{s}:checkpoint:1:s:g ahead "),
    ] {
        raw.run::<()>(spoil).await;
        let error = settle(&redis, 0, 2..=MANY).await.unwrap_err();
        assert_eq!((error.kind(), pending(&redis).await), (ErrorKind::Corrupt, MANY - 1), "{spoil}: {error}");
        raw.run::<()>(mend).await;
    }
    assert_eq!(settle(&redis, 0, 2..=MANY).await.unwrap().acked, MANY - 1);
}

#[tokio::test]
async fn a_server_that_lost_the_scripts_gets_them_again() {
    let server = Server::start().await;
    let redis = delivered(&server).await;
    server.raw().await.run::<()>("SCRIPT FLUSH").await;
    let settled = settle(&redis, 0, 1..=MANY).await.unwrap();
    assert_eq!((settled.position.unwrap().watermark, pending(&redis).await), (id(MANY), 0));
}

#[tokio::test]
async fn g16_at_the_memory_limit_it_goes_on() {
    let server = Server::start().await;
    let redis = delivered(&server).await;
    server.raw().await.run::<()>("CONFIG SET maxmemory 1").await;
    assert_eq!(settle(&redis, 0, 1..=MANY).await.unwrap().acked, MANY);
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, id(MANY));
}

#[tokio::test]
async fn who_may_not_use_transactions_settles_by_the_script() {
    let server = Server::start().await;
    let raw = server.raw().await;
    raw.run::<()>("ACL SETUSER app on >secret ~* &* +@all -@transaction").await;
    delivered(&server).await;
    let url = server.url().replace("redis://", "redis://app:secret@");
    let redis = connect(url).await.unwrap();
    let connections = async || -> String {
        let stats: String = raw.run("INFO stats").await;
        stats.lines().find(|line| line.starts_with("total_connections_received")).unwrap().to_owned()
    };
    assert_eq!(settle(&redis, 0, 1..=500).await.unwrap().acked, 500);
    let before = connections().await;
    assert_eq!(settle(&redis, 0, 501..=MANY).await.unwrap().acked, 1_000);
    assert_eq!(connections().await, before, "it does not connect each time to find out");
    assert_eq!((transactions(&server).await, pending(&redis).await), (0, 0));
}

/// After a failover, the server that was asked before may still be there, and take what it is told.
#[tokio::test]
async fn its_connection_is_left_when_the_shared_one_was_lost() {
    let server = Server::start().await;
    let redis = delivered(&server).await;
    let raw = server.raw().await;
    let of_settles = async || -> Vec<String> {
        let clients: String = raw.run("CLIENT LIST").await;
        let id =
            |line: &str| line.split(' ').next().and_then(|id| id.strip_prefix("id=")).unwrap().to_owned();
        clients.lines().filter(|line| line.contains(" cmd=exec ")).map(id).collect()
    };
    settle(&redis, 0, 1..=500).await.unwrap();
    let before = of_settles().await;
    assert_eq!(before.len(), 1);
    settle(&redis, 0, 501..=1_000).await.unwrap();
    assert_eq!(of_settles().await, before, "it is used again");
    let clients: String = raw.run("CLIENT LIST").await;
    let shared = clients.lines().find(|line| line.contains(" cmd=evalsha ")).unwrap();
    let id = shared.split(' ').next().and_then(|id| id.strip_prefix("id=")).unwrap();
    raw.run::<()>(&format!("CLIENT KILL ID {id}")).await;
    eventually(async || redis.inspect(&Inspect::stream(stream("s"))).await.is_ok()).await;
    settle(&redis, 0, 1_001..=MANY).await.unwrap();
    assert_eq!(pending(&redis).await, 0);
    eventually(async || !of_settles().await.contains(&before[0])).await;
    assert_eq!(of_settles().await.len(), 1);
}

#[tokio::test]
async fn g3_side_by_side_they_settle_all() {
    let server = Server::start().await;
    let redis = delivered(&server).await;
    let others = connect(server.url()).await.unwrap();
    let part = |redis: &Redis, from: u64| {
        let redis = redis.clone();
        async move { settle(&redis, 0, (from..=MANY).step_by(4)).await.unwrap().acked }
    };
    let acked = tokio::join!(part(&redis, 1), part(&others, 2), part(&redis, 3), part(&others, 4));
    assert_eq!((acked.0 + acked.1 + acked.2 + acked.3, pending(&redis).await), (MANY, 0));
    // What was ahead of many holes is known to who counts.
    redis.settle(&Settle::new(subscription(), Vec::new(), Epoch(0), name("c")).count(true)).await.unwrap();
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, id(MANY));
}
