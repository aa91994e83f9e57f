//! Connections that break, block, are dropped and closed.

use std::{error::Error as _, sync::Arc, time::Duration};

use futures_util::FutureExt;
use highwater::{EntryId, Epoch, ErrorKind, Fields, Outcome, Position, Retry, backend::*};
use highwater_redis::Settings;
use tokio::net::TcpListener;

use crate::{Redis, server::*};

fn block(wait: Duration) -> ReadGroup {
    ReadGroup::new(subscription(), name("c"), 10).block(wait)
}

#[tokio::test]
async fn a_dropped_read_closes_its_connection() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    filled(&redis, 0).await;
    let raw = server.raw().await;
    for read in ["group", "plain"] {
        let reader = redis.clone();
        let task = tokio::spawn(async move {
            match read {
                "group" => drop(reader.read_group(&block(Duration::from_secs(20))).await),
                _ => {
                    let wait = Read::new(stream("s"), id(0), 1).block(Duration::from_secs(20));
                    drop(reader.read(&wait).await);
                }
            }
        });
        raw.until_blocked(1).await;
        task.abort();
        raw.until_blocked(0).await;
    }
    fill(&redis, 1, 1).await;
    assert_eq!(deliver(&redis, "d", 1).await, ids([1]), "nobody else took it");
}

#[tokio::test]
async fn a_blocked_read_holds_up_nothing_and_ends_with_an_entry() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    let reader = redis.clone();
    let task = tokio::spawn(async move { reader.read_group(&block(Duration::from_secs(20))).await });
    let raw = server.raw().await;
    raw.until_blocked(1).await;
    let work = async {
        acked(&redis, [1, 2, 3]).await;
        redis.load(&subscription()).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(2), work).await.expect("acks go on");
    assert_eq!(raw.blocked().await, 1, "and the read still waits");
    fill(&redis, 4, 4).await;
    let delivered = task.await.unwrap().unwrap();
    assert_eq!((delivered[0].id(), delivered[0].deliveries), (id(4), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_keeps_its_order_in_a_task_that_does_much_else() {
    let server = Server::start().await;
    let redis = server.backend().await;
    for n in 0..100 {
        // Tokio lets a task that has done so much wait at any await.
        let much_else = async {
            for _ in 0..20 {
                for _ in 0..120 + n % 9 {
                    tokio::task::consume_budget().await;
                }
                tokio::task::yield_now().await;
            }
        };
        // The server refuses an id below one that it has.
        futures_util::join!(much_else, fill(&redis, 1_000 * n + 1, 1_000 * (n + 1)));
    }
}

#[tokio::test]
async fn a_read_whose_connection_breaks_fails_and_is_not_sent_again() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 0).await;
    let raw = server.raw().await;
    let reader = redis.clone();
    let task = tokio::spawn(async move { reader.read_group(&block(Duration::from_secs(20))).await });
    raw.until_blocked(1).await;
    raw.run::<u64>("CLIENT KILL TYPE normal SKIPME yes").await;
    let error = task.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error:?}");
    // Whoever sent it again would wait on another connection, and take the next entry for nobody.
    tokio::time::timeout(Duration::from_secs(1), raw.until_blocked(1)).await.unwrap_err();
    redis.load(&subscription()).await.ok();
    fill(&redis, 1, 1).await;
    assert_eq!(deliver(&redis, "d", 1).await, ids([1]));
}

#[tokio::test]
async fn a_read_that_waits_longer_than_a_command_may_take_is_no_error() {
    let server = Server::start().await;
    let settings = Settings::new(server.url()).response_timeout(Duration::from_millis(200));
    let redis = Redis::open(settings).await.unwrap();
    filled(&redis, 0).await;
    assert!(redis.read_group(&block(Duration::from_millis(700))).await.unwrap().is_empty());
    let wait = Read::new(stream("s"), id(0), 1).block(Duration::from_millis(700));
    assert!(redis.read(&wait).await.unwrap().is_empty());
}

#[tokio::test]
async fn reading_connections_are_used_again() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 0).await;
    let raw = server.raw().await;
    let received = async || {
        let info: String = raw.run("INFO stats").await;
        let line = info.lines().find(|line| line.starts_with("total_connections_received")).unwrap();
        line.split_once(':').unwrap().1.trim().parse::<u64>().unwrap()
    };
    redis.read_group(&ReadGroup::new(subscription(), name("c"), 1)).await.unwrap();
    let before = received().await;
    for _ in 0..10 {
        redis.read_group(&ReadGroup::new(subscription(), name("c"), 1)).await.unwrap();
        let missing = highwater::Subscription::new("absent", "g").unwrap();
        redis.read_group(&ReadGroup::new(missing, name("c"), 1)).await.unwrap_err();
    }
    assert_eq!(received().await, before, "an error reply does not cost the connection");
}

#[tokio::test]
async fn after_a_restart_one_call_fails_and_the_next_connects() {
    let mut server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 1).await;
    deliver(&redis, "c", 1).await;
    server.restart().await;
    let ack = Ack::new(subscription(), ids([1]));
    let at_once = tokio::time::timeout(Duration::from_secs(2), redis.ack(&ack)).await;
    let error = at_once.expect("a broken connection is no timeout").unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown, "nobody can tell");
    assert_eq!(redis.ack(&Ack::new(subscription(), ids([1]))).await.unwrap(), Acked::default());
    redis.read_group(&ReadGroup::new(subscription(), name("c"), 1)).await.unwrap_err();
    filled(&redis, 3).await;
    assert_eq!(deliver(&redis, "c", 9).await, ids(1..=3));
}

#[tokio::test]
async fn without_a_server_calls_fail_fast_and_say_that_nothing_happened() {
    let mut server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    server.stop();
    redis.load(&subscription()).await.unwrap_err();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let redis = redis.clone();
            tokio::spawn(async move {
                let advance = Advance::new(subscription(), Epoch(0), Position::at(id(1)), name("c"));
                redis.advance(&advance).await.unwrap_err()
            })
        })
        .collect();
    for task in tasks {
        let error = task.await.unwrap();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Unavailable, Outcome::NotApplied),
            "{error:?}"
        );
    }
    let connect = connect(server.url()).await.unwrap_err();
    assert_eq!(connect.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_silent_server_is_found_by_the_timeout() {
    // It accepts and never answers: a half-open connection.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let settings = Settings::new(url).connect_timeout(Duration::from_millis(300));
    let error = Redis::open(settings).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
}

#[tokio::test]
async fn a_frozen_server_leaves_an_unknown_outcome_and_costs_the_connection() {
    let server = Server::start().await;
    let redis = server.impatient().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 1).await;
    let raw = server.raw().await;
    raw.run::<()>("CLIENT PAUSE 2500 ALL").await;
    let ack = Ack::new(subscription(), ids([1]));
    let read = block(Duration::from_millis(100));
    let (ack, read) = tokio::join!(redis.ack(&ack), redis.read_group(&read));
    for error in [ack.unwrap_err(), read.unwrap_err()] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error:?}");
    }
    eventually(async || redis.load(&subscription()).await.is_ok()).await;
    // Whatever the abandoned read took is found in the history, and nothing is lost.
    let mut seen = deliver(&redis, "c", 9).await;
    let pending = redis.read_pending(&ReadPending::new(subscription(), name("c"), id(0), 9)).await.unwrap();
    seen.extend(pending.iter().map(|entry| entry.id));
    assert!(ids(2..=3).iter().all(|id| seen.contains(id)), "{seen:?}");
}

#[tokio::test]
async fn g18_a_password_is_checked_and_never_shown() {
    let server = Server::start_with(&["--requirepass", "hunter2secret"]).await;
    let port = server.port();
    let right = format!("redis://:hunter2secret@127.0.0.1:{port}");
    let wrong = format!("redis://:hunter2wrong@127.0.0.1:{port}");
    let redis = connect(right.clone()).await.unwrap();
    redis.load(&subscription()).await.unwrap();
    assert!(!format!("{redis:?}").contains("hunter2"), "{redis:?}");
    assert!(format!("{redis:?}").contains(&port.to_string()), "{redis:?}");
    let absent = format!("redis://127.0.0.1:{port}");
    let bad = "redis://user:hunter2@[bad".to_owned();
    let kinds = [(wrong, ErrorKind::Denied), (absent, ErrorKind::Denied), (bad, ErrorKind::Invalid)];
    for (url, kind) in kinds {
        let error = connect(url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(!format!("{error} {error:?} {source}").contains("hunter2"), "{error:?}");
    }
    server.raw_with(&right).await.run::<()>("ACL SETUSER reader on >pw ~* +@all -xadd").await;
    let reader = connect(format!("redis://reader:pw@127.0.0.1:{port}")).await.unwrap();
    let append = Append::new(stream("s"), vec![NewEntry::new(fields("v"))]);
    let results = reader.append(&append).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_closed_backend_refuses_and_its_reads_end() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    filled(&redis, 0).await;
    let reader = redis.clone();
    let task = tokio::spawn(async move { reader.read_group(&block(Duration::from_secs(20))).await });
    let raw = server.raw().await;
    raw.until_blocked(1).await;
    StreamBackend::close(&*redis).await;
    assert_eq!(task.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    raw.until_blocked(0).await;
    let load = redis.load(&subscription()).await.unwrap_err();
    let read = redis.read(&Read::new(stream("s"), id(0), 1)).await.unwrap_err();
    assert_eq!((load.kind(), read.kind()), (ErrorKind::Closed, ErrorKind::Closed));
    let clients: String = raw.run("CLIENT LIST").await;
    assert_eq!(clients.lines().count(), 1, "{clients}");
}

#[tokio::test]
async fn a_read_only_replica_is_unavailable() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 1).await;
    server.raw().await.run::<()>("REPLICAOF 127.0.0.1 1").await;
    let results = redis.append(&Append::new(stream("s"), vec![NewEntry::new(fields("v"))])).await.unwrap();
    let errors = [
        results[0].as_ref().unwrap_err().kind(),
        redis.read_group(&ReadGroup::new(subscription(), name("c"), 1)).await.unwrap_err().kind(),
        redis.ack(&Ack::new(subscription(), ids([1]))).await.unwrap_err().kind(),
        redis
            .advance(&Advance::new(subscription(), Epoch(0), Position::at(id(1)), name("c")))
            .await
            .unwrap_err()
            .kind(),
    ];
    assert_eq!(errors, [ErrorKind::Unavailable; 4]);
    // Where the name of the server points elsewhere by now, only a new connection gets there.
    let raw = server.raw().await;
    let clients: String = raw.run("CLIENT LIST").await;
    assert_eq!(clients.lines().count(), 1, "no connection to what became a replica is kept: {clients}");
}

#[tokio::test]
async fn one_value_serves_as_every_kind_of_backend() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    let stream_backend: Arc<dyn StreamBackend> = redis.clone();
    let checkpoints: Arc<dyn CheckpointBackend> = redis.clone();
    let both: Arc<dyn AtomicSettle> = redis.clone();
    assert_eq!((stream_backend.name(), checkpoints.name()), ("redis", "redis"));
    assert!(stream_backend.capabilities().durable && !stream_backend.capabilities().names_incarnations);
    both.settle(&Settle::new(subscription(), vec![], Epoch(0), name("c"))).await.unwrap();
}

#[tokio::test]
async fn many_readers_and_writers_share_one_value() {
    // Each blocked by itself; and most of them waiting together, by one more blocked read.
    for (connections, blocked) in [(usize::MAX, 40), (16, 17)] {
        let server = Server::start().await;
        let settings = Settings::new(server.url()).reading_connections_max(connections);
        share_one_value(&server, Arc::new(Redis::open(settings).await.unwrap()), blocked).await;
    }
}

async fn share_one_value(server: &Server, redis: Arc<Redis>, blocked: usize) {
    filled(&redis, 0).await;
    let readers: Vec<_> = (0..40)
        .map(|i| {
            let redis = redis.clone();
            tokio::spawn(async move {
                let read =
                    ReadGroup::new(subscription(), name(&format!("c{i}")), 1).block(Duration::from_secs(10));
                let mut delivered = Vec::new();
                while delivered.is_empty() {
                    delivered = redis.read_group(&read).await.unwrap();
                }
                let ids: Vec<_> = delivered.iter().map(highwater::Delivery::id).collect();
                redis.settle(&Settle::new(subscription(), ids, Epoch(0), name("c"))).await.unwrap().acked
            })
        })
        .collect();
    server.raw().await.until_blocked(blocked).await;
    for n in 1..=40 {
        fill(&redis, n, n).await;
    }
    let mut acked = 0;
    for reader in readers {
        acked += reader.await.unwrap();
    }
    let state = redis.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap().group.unwrap();
    assert_eq!((acked, state.pending, state.last_delivered), (40, 0, id(40)));
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, id(40));
}

#[tokio::test]
async fn the_entries_of_a_call_arrive_as_they_were_and_once() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let entry =
        |n: usize| -> Fields { [(b"\xff\0\r\n".to_vec(), n.to_string().into_bytes())].into_iter().collect() };
    let append = Append::new(stream("s"), (0..100).map(|n| NewEntry::new(entry(n))).collect());
    // What is sent for somebody who goes away is there or is not, and the replies to it are nobody else's.
    assert!(redis.append(&append).now_or_never().is_none());
    let answer: Vec<_> = redis.append(&append).await.unwrap().into_iter().map(Result::unwrap).collect();
    let read = redis.read(&Read::new(stream("s"), EntryId::ZERO, 1000)).await.unwrap();
    assert!([100, 200].contains(&read.len()), "{}", read.len());
    assert!(read.iter().enumerate().all(|(n, read)| read.fields == entry(n % 100)));
    let last: Vec<_> = read[read.len() - 100..].iter().map(|entry| entry.id).collect();
    assert_eq!(answer, last);
    // Where the connection breaks, it is not known.
    let raw = server.raw().await;
    raw.run::<()>("CLIENT PAUSE 5000 WRITE").await;
    let lost = async {
        raw.until_blocked(1).await;
        raw.run::<u64>("CLIENT KILL TYPE normal SKIPME yes").await;
    };
    let (answer, ()) = tokio::join!(redis.append(&append), lost);
    let error = answer.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error:?}");
}
