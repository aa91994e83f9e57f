//! G14, G16: what a broken connection or an outage may not lose.

use std::{path::PathBuf, sync::Arc, time::Duration};

use highwater::{
    ConsumerName, EntryId, Epoch, ErrorKind, Observation, Outcome, Ownership, Position, Subscription,
    backend::{CheckpointBackend, Committed, Settlement, TransactionalCheckpoint},
};
use highwater_redis::{Effects, Redis, key_beside};
use tokio::{sync::watch, time::timeout};

use crate::{
    delivery::{Place, Running, Seen},
    support::{RedisServer, TcpProxy, eventually},
};

const LIMIT: Duration = Duration::from_secs(30);

fn both() -> [Ownership; 2] {
    [Ownership::Shared, Ownership::Exclusive]
}

/// A place whose every connection goes through a proxy.
async fn behind_proxy() -> (Place, TcpProxy, RedisServer) {
    let server = RedisServer::start();
    let proxy = TcpProxy::start(server.addr()).await;
    let redis = Arc::new(Redis::connect(&proxy.url()).await.unwrap());
    (Place::new(redis.clone(), redis), proxy, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g14_a_read_whose_reply_was_lost_loses_nothing() {
    for (ownership, command) in [(Ownership::Shared, "XREADGROUP"), (Ownership::Exclusive, "XREAD")] {
        let (place, proxy, _server) = behind_proxy().await;
        place.append(1).await;
        let seen = Seen::default();
        let running = Running::start(place.builder(ownership), seen.handler());
        place.until_all_settled().await;
        proxy.lose_reply_to(command);
        place.append(20).await;
        proxy.triggered(1).await;
        place.until_all_settled().await;
        let report = running.stop().await;
        let expected: Vec<_> = std::iter::once(1).chain(1..=20).collect();
        assert_eq!(seen.numbers(), expected, "{ownership:?}");
        assert!(report.reconnects >= 1, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g16_every_connection_cut_again_and_again_loses_nothing() {
    for ownership in both() {
        let (place, proxy, server) = behind_proxy().await;
        let seen = Seen::default();
        let running = Running::start(place.builder(ownership), seen.handler());
        let direct = Arc::new(Redis::connect(&server.url()).await.unwrap());
        let feeder = Place { subscription: place.subscription.clone(), ..Place::new(direct.clone(), direct) };
        for round in 1..=10 {
            feeder.append(100).await;
            proxy.cut();
            eventually("it goes on", LIMIT, async || {
                let mut numbers = seen.numbers();
                numbers.sort_unstable();
                numbers.chunk_by(|a, b| a == b).all(|same| same.len() >= round) && !numbers.is_empty()
            })
            .await;
        }
        // The place's own connection was cut as well.
        feeder.until_all_settled().await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g16_a_server_that_restarts_is_waited_for() {
    for ownership in both() {
        let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let redis = Arc::new(Redis::connect(&server.url()).await.unwrap());
        let place = Place::new(redis.clone(), redis);
        place.append(10).await;
        let seen = Seen::default();
        let running = Running::start(place.builder(ownership), seen.handler());
        place.until_all_settled().await;
        server.kill();
        server.restart().unwrap();
        eventually("the server is back", LIMIT, async || {
            place.checkpoints.load(&place.subscription).await.is_ok_and(|checkpoint| checkpoint.is_some())
        })
        .await;
        place.append(10).await;
        place.until_all_settled().await;
        let report = running.stop().await;
        let expected: Vec<_> = (1..=10).chain(1..=10).collect();
        assert_eq!(seen.numbers(), expected, "{ownership:?}");
        assert!(report.reconnects < 50, "no hot loop: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g16_a_frozen_server_is_waited_for() {
    for ownership in both() {
        let (place, proxy, server) = behind_proxy().await;
        let direct = Arc::new(Redis::connect(&server.url()).await.unwrap());
        let feeder = Place { subscription: place.subscription.clone(), ..Place::new(direct.clone(), direct) };
        feeder.append(5).await;
        let seen = Seen::default();
        let running = Running::start(place.builder(ownership), seen.handler());
        feeder.until_all_settled().await;
        // Half open: nothing answers, nothing closes.
        proxy.stall(true);
        eventually("the lease would have run out", LIMIT, {
            let frozen = std::time::Instant::now();
            async move || frozen.elapsed() > Duration::from_secs(4)
        })
        .await;
        proxy.stall(false);
        proxy.cut();
        feeder.append(5).await;
        feeder.until_all_settled().await;
        running.stop().await;
        let expected: Vec<_> = (1..=5).chain(1..=5).collect();
        assert_eq!(seen.numbers(), expected, "{ownership:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_a_commit_whose_reply_was_lost_took_place_once() {
    let (place, proxy, server) = behind_proxy().await;
    let redis = Redis::connect(&proxy.url()).await.unwrap();
    let key = key_beside(&place.subscription.stream, "count");
    let ids = |ms| vec![EntryId::new(ms, 0), EntryId::new(ms, 1)];
    let each = |ms| Settlement::each(place.subscription.clone(), Epoch(0), ConsumerName::unique(), ids(ms));
    let up_to = |ms| each(ms).up_to(Position::at(EntryId::new(ms, 1)));
    for (n, settlement) in [up_to(1), each(2), each(3).fused(true)].into_iter().enumerate() {
        let commit = async || {
            let mut effects = Effects::default();
            effects.incr_by(&key, 1);
            redis.commit(effects, &settlement).await
        };
        proxy.lose_reply_to("INCRBY");
        let error = commit().await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        assert_eq!(commit().await.unwrap(), Committed::AlreadySettled(settlement.ids.clone()));
        assert_eq!(redis.settled(&mut Effects::default(), &settlement).await.unwrap(), settlement.ids);
        assert_eq!(server.cli(&["GET", &key]).unwrap().text(), (n + 1).to_string());
    }
}

/// The file that a server appends to.
fn log_of(server: &RedisServer) -> PathBuf {
    let folders = [server.dir().join("appendonlydir"), server.dir().to_path_buf()];
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with(".incr.aof") || name == "appendonly.aof"
    };
    files.map(|file| file.unwrap().path()).find(is_log).expect("the server keeps a log")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_a_crash_leaves_all_of_a_transaction_or_nothing() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let redis = Redis::connect(&server.url()).await.unwrap();
    let subscription = Subscription::new("s", "g").unwrap();
    let commit = async |ms| {
        let mut effects = Effects::default();
        effects.incr_by("{s}:count", 1).list_push_right("{s}:list", "v").hash_incr_by("{s}:hash", "f", 1);
        let each = Settlement::each(
            subscription.clone(),
            Epoch(0),
            ConsumerName::unique(),
            vec![EntryId::new(ms, 0)],
        );
        redis.commit(effects, &each.up_to(Position::at(EntryId::new(ms, 0)))).await.unwrap()
    };
    commit(1).await;
    let before = std::fs::metadata(log_of(&server)).unwrap().len() as usize;
    commit(2).await;
    server.kill();
    let log = std::fs::read(log_of(&server)).unwrap();
    for end in (before..log.len()).step_by(61).chain([log.len() - 1, log.len()]) {
        server.kill();
        std::fs::write(log_of(&server), &log[..end]).unwrap();
        server.restart().unwrap();
        let checkpoint =
            Redis::connect(&server.url()).await.unwrap().load(&subscription).await.unwrap().unwrap();
        let text = |command: &[&str]| server.cli(command).unwrap();
        let found = [
            text(&["GET", "{s}:count"]).text(),
            text(&["LLEN", "{s}:list"]).int().unwrap().to_string(),
            text(&["HGET", "{s}:hash", "f"]).text(),
            checkpoint.position.watermark.ms.to_string(),
        ];
        let expected = if end == log.len() { "2" } else { "1" };
        assert_eq!(found, [expected; 4], "cut at {end} of {before}..{}", log.len());
    }
}

/// Redis has no name for the life of a stream, and the checkpoint does not always know how many entries it stands for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_stream_that_is_deleted_and_created_anew_at_once_is_told_while_it_is_read() {
    for ownership in both() {
        let server = RedisServer::start();
        let redis = Arc::new(Redis::connect(&server.url()).await.unwrap());
        let place = Place::new(redis.clone(), redis);
        let (looked, mut look) = watch::channel(false);
        let builder = place.builder(ownership).observer(move |_: &Subscription, seen: &Observation<'_>| {
            if let Observation::Status(status) = seen {
                // There is none before it has looked at the stream.
                looked.send_replace(status.lag == Some(0));
            }
        });
        // It is here before the stream is.
        let consumer = builder.build().unwrap();
        let running = tokio::spawn(consumer.run(Seen::default().handler(), std::future::pending::<()>()));
        eventually("it has begun", LIMIT, async || {
            place.checkpoints.load(&place.subscription).await.unwrap().is_some()
        })
        .await;
        place.append(10).await;
        place.until_all_settled().await;
        timeout(LIMIT, look.wait_for(|looked| *looked)).await.expect("it looks").unwrap();
        eventually("the checkpoint does not know its ordinal", LIMIT, async || {
            place.append(1).await;
            place.until_all_settled().await;
            let checkpoint = place.checkpoints.load(&place.subscription).await.unwrap().unwrap();
            ownership == Ownership::Exclusive || checkpoint.position.ordinal.is_none()
        })
        .await;
        let stream = place.subscription.stream.as_str();
        let mut connection = server.connect().unwrap();
        for command in [&["MULTI"][..], &["DEL", stream], &["XADD", stream, "*", "n", "1"], &["EXEC"]] {
            assert!(!connection.run(command).unwrap().is_error());
        }
        let ended = timeout(LIMIT, running).await.expect("it is told").unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Reset, "{ownership:?}");
    }
}
