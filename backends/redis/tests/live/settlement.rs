//! Acks and the advance in one step.

use std::time::Duration;

use highwater::{Epoch, ErrorKind, Position, SettledAhead, backend::*};

use crate::{Redis, server::*};

async fn settle(redis: &Redis, epoch: u64, of: impl IntoIterator<Item = u64>) -> highwater::Result<Settled> {
    redis.settle(&Settle::new(subscription(), ids(of), Epoch(epoch), name("c")).count(true)).await
}

async fn pending(redis: &Redis) -> u64 {
    redis.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap().group.unwrap().pending
}

#[tokio::test]
async fn acks_and_checkpoint_move_together() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 5).await;
    deliver(&redis, "c", 5).await;
    let stored = async || redis.load(&subscription()).await.unwrap().unwrap().position;
    let settled = settle(&redis, 0, [3, 2]).await.unwrap();
    let expected =
        Position::at(highwater::EntryId::new(0, u64::MAX)).with_ahead(SettledAhead::new(id(3), [id(1)]));
    assert_eq!((settled.acked, settled.position.unwrap().ahead.contains(id(3))), (2, true));
    assert!(stored().await.settles(id(3)) && !stored().await.settles(id(1)));
    assert_eq!(stored().await.watermark, expected.watermark);
    let settled = settle(&redis, 0, [1, 4, 5]).await.unwrap();
    let ordinal = redis.capabilities().counts_entries.then_some(5);
    assert_eq!(settled.position, Some(Position::at(id(5)).with_ordinal(ordinal)));
    assert_eq!(stored().await, Position::at(id(5)).with_ordinal(ordinal));
    assert_eq!(settle(&redis, 0, [1, 4, 5]).await.unwrap().acked, 0, "idempotent");
}

#[tokio::test]
async fn g2_acks_in_reverse_move_the_watermark_once() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 4).await;
    deliver(&redis, "c", 4).await;
    for n in [4, 3, 2] {
        let position = settle(&redis, 0, [n]).await.unwrap().position.unwrap();
        assert!(position.watermark < id(1));
    }
    assert_eq!(settle(&redis, 0, [1]).await.unwrap().position.unwrap().watermark, id(4));
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, id(4));
}

#[tokio::test]
async fn g5_a_save_below_all_that_is_pending_keeps_what_others_have_settled_ahead() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 6).await;
    deliver(&redis, "c", 6).await;
    let save = async |of: &[u64]| {
        let request = Settle::new(subscription(), ids(of.iter().copied()), Epoch(0), name("c"));
        redis.settle(&request).await.unwrap().position.unwrap()
    };
    let stored = async || redis.load(&subscription()).await.unwrap().unwrap().position;
    assert!(save(&[3, 5]).await.settles(id(5)), "what is acked above a pending entry is settled ahead");
    assert_eq!(
        save(&[1]).await,
        Position::at(id(2).prev().unwrap()),
        "below all that is pending, nothing is"
    );
    let position = stored().await;
    assert_eq!((1..=6).filter(|&n| position.settles(id(n))).collect::<Vec<_>>(), [1, 3, 5]);
    save(&[2]).await;
    let position = stored().await;
    assert_eq!((1..=6).filter(|&n| position.settles(id(n))).collect::<Vec<_>>(), [1, 2, 3, 5]);
}

#[tokio::test]
async fn a_group_set_back_is_not_settled_by_an_old_checkpoint() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 10).await;
    deliver(&redis, "c", 10).await;
    settle(&redis, 0, (1..=10).filter(|n| *n != 2)).await.unwrap();
    redis.remove(&Removal::Group(subscription())).await.unwrap();
    redis.ensure_group(&EnsureGroup::new(subscription(), &Position::at(id(1)))).await.unwrap();
    // Entry 2 comes again, and with it others that were settled. Nothing is pending when the second one is settled.
    deliver(&redis, "c", 1).await;
    let settled = settle(&redis, 0, [2]).await.unwrap();
    assert_eq!(settled.position.unwrap().watermark, id(2));
}

#[tokio::test]
async fn g4_a_zombie_acks_nothing() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    settle(&redis, 0, [1]).await.unwrap();
    redis.acquire(&Acquire::new(subscription(), name("new"), Duration::from_secs(60))).await.unwrap();
    let error = settle(&redis, 0, [2, 3]).await.unwrap_err();
    assert_eq!((error.kind(), pending(&redis).await), (ErrorKind::Fenced, 2));
    assert_eq!(settle(&redis, 7, [2, 3]).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(pending(&redis).await, 2);
    assert_eq!(settle(&redis, 1, [2, 3]).await.unwrap().acked, 2);
}

#[tokio::test]
async fn without_a_group_nothing_is_advanced() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let settled = settle(&redis, 0, [1]).await.unwrap();
    assert_eq!(settled, Settled::new(0, None));
    assert_eq!(redis.load(&subscription()).await.unwrap(), None);
    server.raw().await.run::<()>("SET s text").await;
    assert_eq!(settle(&redis, 0, [1]).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn g16_at_the_memory_limit_settling_goes_on_and_appending_stops() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    server.raw().await.run::<()>("CONFIG SET maxmemory 1").await;
    let append = Append::new(stream("s"), vec![NewEntry::new(fields("v"))]);
    let results = redis.append(&append).await.unwrap();
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("out of memory"), "{error}");
    assert_eq!(settle(&redis, 0, [1]).await.unwrap().acked, 1);
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark.ms, 1);
    let advance = Advance::new(subscription(), Epoch(0), Position::at(id(2)), name("c"));
    assert!(redis.advance(&advance).await.unwrap().moved);
    let beat = Heartbeat::new(subscription(), name("c"), Token(1), Duration::from_secs(9));
    assert_eq!(redis.heartbeat(&beat).await.unwrap(), Beat::Fresh);
    let acquire = Acquire::new(subscription(), name("c"), Duration::from_secs(9));
    assert!(matches!(redis.acquire(&acquire).await.unwrap(), Acquired::Owned(_)));
    assert_eq!(acked(&redis, [2, 3]).await.acked, 2);
    assert!(redis.inspect(&Inspect::stream(stream("s"))).await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_that_lost_the_scripts_gets_them_again() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    for n in 1..=3 {
        server.raw().await.run::<()>("SCRIPT FLUSH").await;
        assert_eq!(settle(&redis, 0, [n]).await.unwrap().acked, 1);
    }
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, id(3));
}

#[tokio::test]
async fn a_checkpoint_stays_below_a_kibibyte() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let base = 1_700_000_000_000;
    fill(&redis, base, base + 1999).await;
    redis.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    deliver(&redis, "c", 2000).await;
    let reason = "r".repeat(128);
    redis.reset(&ResetCheckpoint::pause(subscription(), true).because(reason).unwrap()).await.unwrap();
    let owner = name(&format!("{}-1234-0123456789abcdef", "h".repeat(40)));
    redis.acquire(&Acquire::new(subscription(), owner, Duration::ZERO)).await.unwrap();
    settle(&redis, 2, (0..2000).step_by(2).map(|n| base + 1999 - n)).await.unwrap();
    let record: Vec<String> = server.raw().await.run("HGETALL highwater:{s}:checkpoint:1:s:g").await;
    let size: usize = record.iter().map(String::len).sum();
    assert!((400..1024).contains(&size), "{size}: {record:?}");
    let position = redis.load(&subscription()).await.unwrap().unwrap().position;
    for n in 0..2000 {
        assert!(n % 2 == 1 || !position.settles(id(base + n)), "{n}");
    }
}
