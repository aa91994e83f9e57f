//! What is remembered of attempts, and what an operator leaves in a checkpoint.

use std::time::Duration;

use highwater::{Attempts, DeathReason, Doom, EntryId, Epoch, ErrorKind, Position, Result, backend::*};

use crate::{Redis, server::*};

const KEY: &str = "highwater:{s}:attempts:1:s:g";
const CHECKPOINT: &str = "highwater:{s}:checkpoint:1:s:g";
const LONG: Duration = Duration::from_secs(600);

fn failed(ms: u64, failures: u32) -> Attempts {
    let mut attempts = Attempts::new(id(ms));
    attempts.failures = failures;
    attempts
}

async fn note(redis: &Redis, epoch: u64, set: Vec<Attempts>, clear: &[u64]) -> Result<()> {
    let clear = ids(clear.iter().copied());
    redis.note_attempts(&NoteAttempts::new(subscription(), Epoch(epoch), set, clear)).await
}

async fn all(redis: &Redis) -> Vec<Attempts> {
    redis.attempts(&LoadAttempts::all(subscription())).await.unwrap()
}

async fn of(redis: &Redis, of: &[u64]) -> Vec<Attempts> {
    redis.attempts(&LoadAttempts::of(subscription(), ids(of.iter().copied()))).await.unwrap()
}

#[tokio::test]
async fn g11_attempts_are_remembered_and_forgotten() {
    let server = Server::start().await;
    let redis = server.backend().await;
    assert_eq!((all(&redis).await, of(&redis, &[1]).await, of(&redis, &[]).await), (vec![], vec![], vec![]));
    let mut doomed = failed(10, 2);
    doomed.doom = Some(Doom::new(DeathReason::Rejected, "no  such ü"));
    note(&redis, 0, vec![failed(9, 1), doomed.clone(), failed(2, 1)], &[]).await.unwrap();
    assert_eq!(redis.load(&subscription()).await.unwrap(), None, "it is no checkpoint");
    assert_eq!(all(&redis).await, [failed(2, 1), failed(9, 1), doomed.clone()], "by id and not by text");
    assert_eq!(of(&redis, &[10, 2, 5, 2]).await, [failed(2, 1), doomed.clone()]);
    note(&redis, 0, vec![failed(9, 7)], &[2, 3]).await.unwrap();
    assert_eq!(all(&redis).await, [failed(9, 7), doomed]);
    let mut last = Attempts::new(EntryId::MAX);
    last.crashes = 1;
    note(&redis, 0, vec![last.clone(), failed(4, 1)], &[4, 9, 10]).await.unwrap();
    assert_eq!(all(&redis).await, [last], "what is both set and cleared is cleared");
    let many: Vec<_> = (1..=2500).map(|ms| failed(ms, 1)).collect();
    let clear: Vec<u64> = (1..=2400).collect();
    note(&redis, 0, many.clone(), &[]).await.unwrap();
    assert_eq!(of(&redis, &clear).await, many[..2400]);
    note(&redis, 0, vec![], &clear).await.unwrap();
    assert_eq!(all(&redis).await.len(), 101);
}

#[tokio::test]
async fn g4_attempts_of_another_epoch_are_refused() {
    let server = Server::start().await;
    let redis = server.backend().await;
    assert_eq!(note(&redis, 1, vec![failed(1, 1)], &[]).await.unwrap_err().kind(), ErrorKind::Invalid);
    note(&redis, 0, vec![failed(1, 1)], &[]).await.unwrap();
    redis.acquire(&Acquire::new(subscription(), name("a"), LONG)).await.unwrap();
    let error = note(&redis, 0, vec![failed(1, 2)], &[1]).await.unwrap_err();
    assert_eq!((error.kind(), error.context("stored")), (ErrorKind::Fenced, Some("1")));
    assert_eq!(note(&redis, 2, vec![], &[1]).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(all(&redis).await, [failed(1, 1)], "a new owner finds them");
    note(&redis, 1, vec![failed(1, 2)], &[]).await.unwrap();
    assert_eq!(all(&redis).await, [failed(1, 2)]);
}

#[tokio::test]
async fn g18_attempts_that_cannot_be_read_are_corrupt_and_stay() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    let spoilt = [format!("HSET {KEY} 1-0 x"), format!("HSET {KEY} x 1"), format!("HSET {CHECKPOINT} v 2")];
    for garbage in spoilt {
        raw.run::<()>(&garbage).await;
        let before = raw.picture().await;
        let loaded = redis.attempts(&LoadAttempts::all(subscription())).await.map(|_| ());
        let noted = note(&redis, 0, vec![failed(2, 1)], &[1]).await;
        // A text that cannot be read may be written over.
        let result = if garbage.contains("checkpoint") { noted } else { loaded };
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt, "{garbage}");
        if garbage.contains("checkpoint") {
            assert_eq!(raw.picture().await, before);
        }
        raw.run::<()>("FLUSHALL").await;
    }
    raw.run::<()>(&format!("SET {KEY} text")).await;
    let results = [
        redis.attempts(&LoadAttempts::all(subscription())).await.map(|_| ()),
        redis.attempts(&LoadAttempts::of(subscription(), ids([1]))).await.map(|_| ()),
        note(&redis, 0, vec![failed(2, 1)], &[]).await,
    ];
    for result in results {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.context("key")), (ErrorKind::Corrupt, Some(KEY)));
    }
    assert_eq!(raw.run::<String>(&format!("GET {KEY}")).await, "text");
}

#[tokio::test]
async fn g16_at_the_memory_limit_attempts_are_remembered() {
    let server = Server::start().await;
    let redis = server.backend().await;
    server.raw().await.run::<()>("CONFIG SET maxmemory 1").await;
    note(&redis, 0, vec![failed(1, 1)], &[]).await.unwrap();
    assert_eq!(all(&redis).await, [failed(1, 1)]);
}

#[tokio::test]
async fn a_new_position_forgets_attempts_and_a_pause_keeps_them() {
    let server = Server::start().await;
    let redis = server.backend().await;
    note(&redis, 0, vec![failed(1, 1)], &[]).await.unwrap();
    assert_eq!(redis.reset(&ResetCheckpoint::pause(subscription(), true)).await.unwrap(), Epoch(1));
    assert_eq!(all(&redis).await, [failed(1, 1)]);
    let reset = ResetCheckpoint::new(subscription(), Position::at(id(1)));
    assert_eq!(redis.reset(&reset).await.unwrap(), Epoch(2));
    assert_eq!(all(&redis).await, []);
}

#[tokio::test]
async fn a_pause_moves_nothing_and_survives_owners() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let pause = |paused| ResetCheckpoint::pause(subscription(), paused);
    assert_eq!(redis.reset(&pause(true).because("a bad deploy").unwrap()).await.unwrap(), Epoch(1));
    let first = redis.load(&subscription()).await.unwrap().unwrap();
    assert_eq!((first.position.clone(), first.paused), (Position::default(), true), "at the beginning");
    assert_eq!(first.reason.as_deref(), Some("a bad deploy"));
    let advance =
        Advance::new(subscription(), Epoch(1), Position::at(id(5)).with_ordinal(Some(5)), name("c"));
    assert!(redis.advance(&advance).await.unwrap().moved, "a pause keeps nobody from settling");
    let acquired = redis.acquire(&Acquire::new(subscription(), name("c"), LONG)).await.unwrap();
    assert!(matches!(acquired, Acquired::Owned(_)));
    let stored = redis.load(&subscription()).await.unwrap().unwrap();
    assert_eq!((stored.position.watermark, stored.paused), (id(5), true));
    assert_eq!(redis.list(&stream("s")).await.unwrap()[0].1, stored);
    assert_eq!(redis.reset(&pause(false)).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(redis.reset(&pause(false).force(true)).await.unwrap(), Epoch(3));
    let resumed = redis.load(&subscription()).await.unwrap().unwrap();
    assert_eq!((resumed.paused, resumed.reason.as_deref()), (false, None));
    assert_eq!((&resumed.position, &resumed.owner), (&stored.position, &stored.owner));
    assert_eq!(resumed.updated_at, stored.updated_at);
    let reset = ResetCheckpoint::new(subscription(), Position::at(id(2))).because("again").unwrap();
    redis.reset(&reset).await.unwrap();
    let moved = redis.load(&subscription()).await.unwrap().unwrap();
    assert_eq!((moved.position, moved.paused, moved.owner), (Position::at(id(2)), false, None));
}

#[tokio::test]
async fn g4_a_reset_from_another_place_is_refused() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let skip = |from, to| {
        ResetCheckpoint::new(subscription(), Position::at(id(to))).expect_watermark(EntryId::new(from, 0))
    };
    let error = redis.reset(&skip(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.context("stored")), (ErrorKind::Fenced, Some("0-0")));
    assert_eq!(server.raw().await.run::<u64>("DBSIZE").await, 0);
    redis.reset(&skip(0, 7)).await.unwrap();
    let before = server.raw().await.picture().await;
    let error = redis.reset(&skip(0, 8)).await.unwrap_err();
    assert_eq!((error.context("expected"), error.context("stored")), (Some("0-0"), Some("7-0")));
    assert_eq!(server.raw().await.picture().await, before);
    assert_eq!(redis.reset(&skip(7, 8)).await.unwrap(), Epoch(2));
}

#[tokio::test]
async fn g18_a_pause_or_a_reason_that_cannot_be_read_is_corrupt() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    for spoil in ["paused yes", "reason a\u{7f}b", &format!("reason {}", "r".repeat(129))] {
        redis.reset(&ResetCheckpoint::pause(subscription(), true)).await.unwrap();
        raw.run::<()>(&format!("HSET {CHECKPOINT} {spoil}")).await;
        let before = raw.picture().await;
        let results = [
            redis.load(&subscription()).await.map(|_| ()),
            redis.acquire(&Acquire::new(subscription(), name("a"), LONG)).await.map(|_| ()),
            redis.reset(&ResetCheckpoint::pause(subscription(), false).force(true)).await.map(|_| ()),
            note(&redis, 1, vec![], &[]).await,
        ];
        for result in results {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt, "{spoil}");
        }
        assert_eq!(raw.picture().await, before);
        raw.run::<()>("FLUSHALL").await;
    }
}
