//! Readers that wait without a connection of their own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use highwater::{ErrorKind, Outcome, backend::*};
use highwater_redis::Settings;
use tokio::task::JoinSet;

use crate::{Redis, server::*};

const WAIT: Duration = Duration::from_secs(20);

/// A backend whose reads have no connection of their own.
async fn waiting(server: &Server) -> Arc<Redis> {
    Arc::new(Redis::open(Settings::new(server.url()).reading_connections_max(0)).await.unwrap())
}

fn of(consumer: &str) -> ReadGroup {
    ReadGroup::new(subscription(), name(consumer), 10).block(WAIT)
}

/// How often the server was asked this.
async fn calls(raw: &Raw, command: &str) -> u64 {
    let stats: String = raw.run("INFO commandstats").await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

async fn connections(raw: &Raw) -> usize {
    raw.run::<String>("CLIENT LIST").await.lines().count()
}

#[tokio::test]
async fn a_crowd_behind_one_group_takes_each_entry_once_and_asks_little() {
    let server = Server::start().await;
    let redis = waiting(&server).await;
    filled(&redis, 0).await;
    let mut readers = JoinSet::new();
    for n in 0..200 {
        let redis = redis.clone();
        readers.spawn(async move {
            loop {
                let delivered = redis.read_group(&of(&format!("c{n}"))).await.unwrap();
                if !delivered.is_empty() {
                    break delivered;
                }
            }
        });
    }
    let raw = server.raw().await;
    raw.until_blocked(1).await;
    eventually(async || calls(&raw, "xreadgroup").await >= 200).await;
    assert!(connections(&raw).await < 10, "of 200 that read");
    let mut seen = Vec::new();
    for ms in 1..=200 {
        fill(&redis, ms, ms).await;
        let delivered = readers.join_next().await.unwrap().unwrap();
        seen.extend(delivered.iter().map(highwater::Delivery::id));
        if seen.len() == 200 {
            break;
        }
    }
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), ids(1..=200));
    // Without that, each of 200 entries would wake all who wait: 20,000 reads.
    let asked = calls(&raw, "xreadgroup").await;
    assert!(asked <= 2_000, "one is woken for an entry, and perhaps one more: {asked}");
}

#[tokio::test]
async fn readers_of_many_streams_are_woken_each_by_its_own() {
    let server = Server::start().await;
    let redis = waiting(&server).await;
    let mut readers = JoinSet::new();
    for n in 0..600_u64 {
        let redis = redis.clone();
        readers.spawn(async move {
            let read = Read::new(stream(&format!("s{n}")), id(0), 10).block(WAIT);
            (n, redis.read(&read).await.unwrap())
        });
    }
    let raw = server.raw().await;
    // Eight wait for 16 streams each, and then one for up to 64.
    raw.until_blocked(15).await;
    assert!(connections(&raw).await < 25, "of 600 that read");
    for n in (0..600).rev() {
        raw.run::<String>(&format!("XADD s{n} {}-0 f v", n + 1)).await;
        let (woken, entries) = readers.join_next().await.unwrap().unwrap();
        assert_eq!((woken, entries.len(), entries[0].id), (n, 1, id(n + 1)));
    }
}

#[tokio::test]
async fn who_has_a_connection_waits_by_it_alone() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    filled(&redis, 0).await;
    let raw = server.raw().await;
    let before = connections(&raw).await;
    let plain = redis.clone();
    let group = redis.clone();
    let plain = tokio::spawn(async move { plain.read(&Read::new(stream("s"), id(0), 1).block(WAIT)).await });
    let group = tokio::spawn(async move { group.read_group(&of("c")).await });
    raw.until_blocked(2).await;
    assert_eq!(connections(&raw).await, before + 2);
    fill(&redis, 1, 1).await;
    assert_eq!((plain.await.unwrap().unwrap().len(), group.await.unwrap().unwrap().len()), (1, 1));
    assert_eq!(calls(&raw, "xrevrange").await, 0, "nobody waits for both");
}

#[tokio::test]
async fn g14_what_is_pending_is_read_behind_a_read_that_was_dropped_on_a_shared_connection() {
    let server = Server::start().await;
    let settings = Settings::new(server.url()).reading_connections_max(1);
    let redis = Arc::new(Redis::open(settings).await.unwrap());
    filled(&redis, 1).await;
    let raw = server.raw().await;
    let other = redis.clone();
    let other = tokio::spawn(async move { other.read(&Read::new(stream("t"), id(0), 1).block(WAIT)).await });
    raw.until_blocked(1).await;
    // It shares, since the only connection for one alone is taken.
    assert_eq!(deliver(&redis, "c", 1).await, ids([1]));
    other.abort();
    raw.until_blocked(0).await;
    let before = connections(&raw).await;
    let pending = redis.read_pending(&ReadPending::new(subscription(), name("c"), id(0), 10)).await.unwrap();
    assert_eq!((pending.len(), connections(&raw).await), (1, before), "by the same connection");
}

#[tokio::test]
async fn a_group_that_goes_is_learned_at_the_end_of_the_wait() {
    let server = Server::start().await;
    let redis = waiting(&server).await;
    filled(&redis, 0).await;
    let reader = tokio::spawn({
        let redis = redis.clone();
        async move { redis.read_group(&of("c").block(Duration::from_secs(1))).await }
    });
    let raw = server.raw().await;
    raw.until_blocked(1).await;
    raw.run::<u64>("XGROUP DESTROY s g").await;
    assert_eq!(reader.await.unwrap().unwrap_err().kind(), ErrorKind::Missing);
}

#[tokio::test]
async fn a_server_that_restarts_is_waited_for_again() {
    let mut server = Server::start().await;
    let redis = waiting(&server).await;
    let read = || {
        let redis = redis.clone();
        tokio::spawn(async move { redis.read(&Read::new(stream("s"), id(0), 10).block(WAIT)).await })
    };
    let reader = read();
    server.raw().await.until_blocked(1).await;
    server.restart().await;
    let raw = server.raw().await;
    raw.until_blocked(1).await;
    raw.run::<String>("XADD s 1-0 f v").await;
    // It was woken, and read by a connection that the restart had broken; the next read has a new one.
    let error = reader.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
    assert_eq!(read().await.unwrap().unwrap()[0].id, id(1));
}

#[tokio::test]
async fn a_key_of_another_type_is_told_to_its_reader_and_holds_up_no_other() {
    let server = Server::start().await;
    let redis = waiting(&server).await;
    let raw = server.raw().await;
    let read = |name: &str| {
        let (redis, read) = (redis.clone(), Read::new(stream(name), id(0), 10).block(WAIT));
        tokio::spawn(async move { redis.read(&read).await })
    };
    let (turns, stays) = (read("turns"), read("stays"));
    raw.until_blocked(1).await;
    raw.run::<()>("SET turns text").await;
    raw.run::<()>("SET wrong text").await;
    assert_eq!(read("wrong").await.unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(turns.await.unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    raw.run::<String>("XADD stays 1-0 f v").await;
    assert_eq!(stays.await.unwrap().unwrap()[0].id, id(1));
}

#[tokio::test]
async fn dropping_the_backend_ends_the_waiting() {
    let server = Server::start().await;
    let redis = waiting(&server).await;
    let raw = server.raw().await;
    let task = tokio::spawn(async move {
        redis.read(&Read::new(stream("s"), id(0), 1).block(WAIT)).await.unwrap();
    });
    raw.until_blocked(1).await;
    task.abort();
    raw.until_blocked(0).await;
    assert_eq!(connections(&raw).await, 1);
}
