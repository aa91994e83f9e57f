use std::time::Duration;

use highwater::{EntryId, Epoch, Error, ErrorKind, Fields, Outcome, Retry, backend::*};
use highwater_sqlite::{Settings, Sqlite};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use crate::support::*;

async fn refused(path: impl AsRef<std::path::Path>) -> Error {
    Sqlite::open(path).await.expect_err("it cannot be opened")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_may_open_a_new_file_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.db");
    let opening: Vec<_> = (0..20)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { Sqlite::open(path).await })
        })
        .collect();
    let stream = highwater::StreamName::new("s").unwrap();
    let mut opened = Vec::new();
    for task in opening {
        opened.push(task.await.unwrap().unwrap());
    }
    for sqlite in &opened {
        let request = Append::new(stream.clone(), vec![NewEntry::new(fields(1))]);
        sqlite.append(&request).await.unwrap().remove(0).unwrap();
    }
    let state = opened[0].inspect(&Inspect::stream(stream)).await.unwrap().unwrap();
    assert_eq!(state.len, 20);
}

#[tokio::test]
async fn g18_a_path_that_cannot_be_a_database_is_told_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let missing = refused(directory.path().join("none/test.db")).await;
    assert_eq!(missing.kind(), ErrorKind::Invalid);
    assert!(missing.to_string().contains("create it"), "{missing}");
    assert_eq!(refused(directory.path()).await.kind(), ErrorKind::Invalid);
    assert_eq!(refused(":memory:").await.kind(), ErrorKind::Invalid);
    assert_eq!(refused("").await.kind(), ErrorKind::Invalid);

    let text = directory.path().join("text.db");
    let content = "this is no database. ".repeat(100);
    std::fs::write(&text, &content).unwrap();
    assert_eq!(refused(&text).await.kind(), ErrorKind::Corrupt);
    assert_eq!(std::fs::read_to_string(&text).unwrap(), content);
    let settings = Settings::default().poll_interval(Duration::ZERO);
    assert_eq!(kind(Sqlite::open_with(directory.path().join("x"), &settings).await), ErrorKind::Invalid);
    assert!(!directory.path().join("x").exists());
}

/// Also when several processes do so at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_file_of_an_earlier_version_is_upgraded_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut raw = options.connect().await.unwrap();
    sqlx::raw_sql(include_str!("../../migrations/0001_init.sql")).execute(&mut raw).await.unwrap();
    let checkpoint = "INSERT INTO highwater_checkpoint VALUES \
        ('orders', 'billing', '1', '3', '7-0', '', '7', '', 'me', '1000', '', 0)";
    sqlx::raw_sql(checkpoint).execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();

    let opening = (0..8).map(|_| tokio::spawn(Sqlite::open(path.clone())));
    let mut opened = Vec::new();
    for task in opening.collect::<Vec<_>>() {
        opened.push(task.await.unwrap().unwrap());
    }
    let orders = highwater::Subscription::new("orders", "billing").unwrap();
    let stored = opened[0].load(&orders).await.unwrap().unwrap();
    assert_eq!((stored.position.watermark, stored.epoch), (id(7), Epoch(3)));
    let ids = vec![id(6), id(7), id(9)];
    let settlement = Settlement::each(orders, Epoch(3), name("me"), ids.clone());
    let tx = opened[1].begin().await.unwrap();
    let committed = opened[1].commit(tx, &settlement).await.unwrap();
    assert_eq!(committed, Committed::AlreadySettled(ids[..2].to_vec()));
    let mut raw = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM highwater_schema").fetch_all(&mut raw).await.unwrap();
    assert_eq!(versions, [3]);
    assert!(!stored.paused);
}

#[tokio::test]
async fn g18_a_schema_of_a_later_version_is_left_as_it_is() {
    for (version, says) in [("7", "upgrade"), ("0", "version"), ("-1", "version")] {
        let store = Store::new().await;
        store.append([1]).await;
        let mut raw = store.raw().await;
        let update = format!("UPDATE highwater_schema SET version = {version}");
        sqlx::query(sqlx::AssertSqlSafe(update)).execute(&mut raw).await.unwrap();
        let error = refused(store.path()).await;
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(says), "{error}");
        let entries: i64 =
            sqlx::query_scalar("SELECT count(*) FROM highwater_entry").fetch_one(&mut raw).await.unwrap();
        assert_eq!(entries, 1);
    }
}

#[tokio::test]
async fn tables_of_the_user_may_live_in_the_same_file() {
    let store = Store::new().await;
    let mut raw = store.raw().await;
    sqlx::query("CREATE TABLE effect (id TEXT)").execute(&mut raw).await.unwrap();
    store.append([1]).await;
    assert_eq!(
        store.another().await.inspect(&Inspect::subscription(&store.orders)).await.unwrap().unwrap().len,
        1
    );
    let shown: (String, String, i64) = sqlx::query_as("SELECT stream, id, ordinal FROM highwater_entries")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(shown, ("orders".into(), "1-0".into(), 1), "people can read it");
}

#[tokio::test]
async fn a_full_disk_fails_writes_with_a_typed_error_and_reads_go_on() {
    let store = Store::with(&settings().max_bytes(Some(1 << 20))).await;
    store.append([1]).await;
    let large: Fields = [("large", vec![0u8; 300_000])].into_iter().collect();
    let request = Append::new(store.orders.stream.clone(), vec![NewEntry::new(large)]);
    let mut appended = 1;
    let error = loop {
        match store.sqlite.append(&request).await {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
        assert!(appended < 10, "the limit has no effect");
    };
    assert_eq!(
        (error.kind(), error.retry(), error.outcome()),
        (ErrorKind::Unavailable, Retry::Later, Outcome::NotApplied)
    );
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(store.read(EntryId::ZERO).await.len(), appended);

    // One that does not fit does not take those with it that share its commit.
    store.ensure_group(0).await;
    let heartbeats = (0..10).map(|n| {
        let store = &store;
        async move { store.beat(&format!("c{n}"), 1, Duration::from_secs(600)).await }
    });
    let (full, beats) =
        tokio::join!(store.sqlite.append(&request), futures_util::future::join_all(heartbeats));
    assert_eq!(kind(full), ErrorKind::Unavailable);
    assert!(beats.into_iter().all(|beat| beat.unwrap() == Beat::Fresh));

    store.sqlite.trim(&Trim::new(store.orders.stream.clone(), TrimLimit::Len(0))).await.unwrap();
    store.sqlite.append(&request).await.unwrap().remove(0).unwrap();
    assert_eq!(store.state().await.entries_added, Some(appended as u64 + 1));
}

#[tokio::test]
async fn another_writer_that_does_not_let_go_is_unavailable_and_nothing_was_applied() {
    let store = Store::with(&settings().busy_timeout(Duration::from_millis(50))).await;
    let mut raw = store.raw().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut raw).await.unwrap();
    let request = Append::new(store.orders.stream.clone(), vec![NewEntry::new(fields(1))]);
    let error = store.sqlite.append(&request).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry(), error.outcome()),
        (ErrorKind::Unavailable, Retry::Later, Outcome::NotApplied)
    );
    assert!(store.read(EntryId::ZERO).await.is_empty(), "readers are not held up");
    sqlx::query("COMMIT").execute(&mut raw).await.unwrap();
    store.append([1]).await;
    assert_eq!(store.read(EntryId::ZERO).await, [id(1)]);
}

#[tokio::test]
async fn an_entry_that_was_damaged_is_corrupt_and_stays() {
    let store = Store::new().await;
    store.append([1, 2]).await;
    store.ensure_group(0).await;
    let mut raw = store.raw().await;
    sqlx::query("UPDATE highwater_entry SET fields = x'05' WHERE ordinal = 2")
        .execute(&mut raw)
        .await
        .unwrap();
    let read = Read::new(store.orders.stream.clone(), EntryId::ZERO, 10);
    let error = store.sqlite.read(&read).await.unwrap_err();
    assert_eq!((error.kind(), error.context("id")), (ErrorKind::Corrupt, Some("2-0")));
    let group = ReadGroup::new(store.orders.clone(), name("a"), 10);
    assert_eq!(kind(store.sqlite.read_group(&group).await), ErrorKind::Corrupt);
    assert_eq!(store.state().await.group.unwrap().pending, 0, "nothing was delivered unseen");
    assert_eq!(store.read_group("a", 1).await, [1]);
}

#[test]
fn a_handle_that_outlives_its_runtime_is_closed() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let store = first.block_on(Store::new());
    drop(first);
    let read = Read::new(store.orders.stream.clone(), EntryId::ZERO, 1);
    let append = Append::new(store.orders.stream.clone(), vec![NewEntry::new(fields(1))]);
    runtime().block_on(async {
        assert_eq!(kind(soon(store.sqlite.read(&read)).await), ErrorKind::Closed);
        assert_eq!(kind(soon(store.sqlite.append(&append)).await), ErrorKind::Closed);
    });
}

#[tokio::test]
async fn tables_that_went_are_told() {
    let store = Store::new().await;
    let mut raw = store.raw().await;
    sqlx::query("DROP TABLE highwater_checkpoint").execute(&mut raw).await.unwrap();
    let error = store.sqlite.load(&store.orders).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
}
