//! Transactions of handlers, as others on the same file see them.

use std::{
    collections::BTreeSet,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use highwater::{EntryId, Epoch, ErrorKind, Outcome, Position, Retry, backend::*, clock::Clock};
use highwater_sqlite::{Settling, Sqlite, Tx};
use sqlx::{Connection, SqliteConnection};
use tokio::task::JoinSet;

use crate::{
    process::{CHILD, Running, drop_after},
    support::*,
};

async fn with_effects() -> Store {
    let store = Store::with(&settings().busy_timeout(Duration::from_millis(200))).await;
    let tables = "CREATE TABLE customer (id INTEGER PRIMARY KEY); \
        CREATE TABLE effects (entry INTEGER, customer INTEGER REFERENCES customer (id) DEFERRABLE INITIALLY DEFERRED)";
    sqlx::raw_sql(tables).execute(&mut store.raw().await).await.unwrap();
    store
}

async fn write(tx: &mut Tx, entry: u64) {
    insert(tx.conn().await.unwrap(), entry).await;
}

async fn insert(conn: &mut SqliteConnection, entry: u64) {
    sqlx::query("INSERT INTO effects (entry) VALUES (?)").bind(entry as i64).execute(conn).await.unwrap();
}

async fn count(store: &Store, table: &'static str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(count).fetch_one(&mut store.raw().await).await.unwrap()
}

fn each(store: &Store, ids: impl IntoIterator<Item = u64>) -> Settlement {
    Settlement::each(store.orders.clone(), Epoch(0), name("me"), ids.into_iter().map(id).collect())
}

async fn done(store: &Store, settlement: &Settlement) {
    let mut tx = store.sqlite.begin().await.unwrap();
    write(&mut tx, settlement.ids[0].ms).await;
    let committed = store.sqlite.commit(tx, settlement).await.unwrap();
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
}

#[tokio::test]
async fn g13_a_handler_holds_up_nobody_before_it_writes() {
    let store = with_effects().await;
    store.ensure_group(0).await;
    let mut tx = store.sqlite.begin().await.unwrap();
    assert_eq!(store.sqlite.settled(&mut tx, &each(&store, [1])).await.unwrap(), []);
    store.append([1]).await;
    store.beat("me", 1, Duration::from_secs(3)).await.unwrap();
    store.another().await.advance(&advance(&store, 1)).await.unwrap();
    write(&mut tx, 2).await;
    store.sqlite.commit(tx, &each(&store, [2])).await.unwrap();
}

fn advance(store: &Store, to: u64) -> Advance {
    Advance::new(store.orders.clone(), Epoch(0), Position::at(id(to)), name("me"))
}

/// Whoever gave a sign of life while the file was not free, is alive when it is.
#[tokio::test]
async fn g13_the_living_keep_while_a_transaction_holds_the_file() {
    let store = with_effects().await;
    let sqlite = store.another().await;
    store.ensure_group(0).await;
    store.append([1, 2]).await;
    let ttl = Duration::from_millis(300);
    let beat = |token| Heartbeat::new(store.orders.clone(), name("alive"), Token(token), ttl);
    sqlite.heartbeat(&beat(1)).await.unwrap();
    assert_eq!(store.read_group("alive", 10).await, [1, 2]);
    let mut tx = sqlite.begin().await.unwrap();
    write(&mut tx, 1).await;
    let claim = Claim::new(store.orders.clone(), name("other"), 10, Duration::ZERO);
    let end = async {
        Clock::new().sleep(2 * ttl).await;
        sqlite.commit(tx, &each(&store, [1])).await.unwrap()
    };
    // The claim came first, and waits before the sign of life does.
    let beat = beat(1);
    let (claimed, beaten, _) = tokio::join!(sqlite.claim(&claim), sqlite.heartbeat(&beat), end);
    beaten.unwrap();
    assert_eq!(claimed.unwrap().entries, []);
}

#[tokio::test]
async fn g16_a_transaction_that_holds_the_file_too_long_is_told_and_ends() {
    let store = with_effects().await;
    let other = Sqlite::open_with(store.path(), &settings().busy_timeout(Duration::from_millis(200))).await;
    let other = other.unwrap();
    let mut tx = store.sqlite.begin().await.unwrap();
    write(&mut tx, 1).await;
    for sqlite in [&store.sqlite, &other] {
        let clock = Clock::started();
        let request = advance(&store, 1);
        let requests = (0..20).map(|_| sqlite.advance(&request));
        for advanced in futures_util::future::join_all(requests).await {
            let error = advanced.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
        }
        assert!(clock.elapsed() < Duration::from_secs(2), "not one after the other: {:?}", clock.elapsed());
        let error = sqlite.begin().await.unwrap().conn().await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Now));
    }
    drop(tx);
    for sqlite in [&store.sqlite, &other] {
        sqlite.advance(&advance(&store, 1)).await.unwrap();
    }
    assert_eq!(count(&store, "effects").await, 0);
}

/// Transactions in a row leave room for what waits beside them: nobody who comes later goes before it.
#[tokio::test]
async fn g13_transactions_and_requests_take_turns() {
    const HANDLERS: u64 = 4;
    let store = Store::new().await;
    sqlx::raw_sql("CREATE TABLE effects (entry)").execute(&mut store.raw().await).await.unwrap();
    store.ensure_group(0).await;
    let turns = Arc::new(AtomicU64::new(0));
    let mut handlers = JoinSet::new();
    for n in 0..HANDLERS {
        let (sqlite, turns, settlement) = (store.sqlite.clone(), turns.clone(), each(&store, [1 + n]));
        handlers.spawn(async move {
            loop {
                let mut tx = sqlite.begin().await.unwrap();
                write(&mut tx, n).await;
                Clock::new().sleep(Duration::from_millis(2)).await;
                turns.fetch_add(1, Ordering::Relaxed);
                sqlite.commit(tx, &settlement).await.unwrap();
            }
        });
    }
    for _ in 0..30 {
        let before = turns.load(Ordering::Relaxed);
        store.beat("me", 1, Duration::from_secs(3)).await.unwrap();
        let waited = turns.load(Ordering::Relaxed) - before;
        assert!(waited <= 2 * HANDLERS, "{waited} transactions went before it");
    }
}

/// Only the library commits, whatever a handler does or does not notice.
#[tokio::test]
async fn g9_nothing_is_committed_beside_the_entries() {
    let store = with_effects().await;
    sqlx::raw_sql("CREATE UNIQUE INDEX once ON effects (entry)")
        .execute(&mut store.raw().await)
        .await
        .unwrap();
    let settlement = each(&store, [1]);
    for ends in [
        "INSERT INTO effects (entry) VALUES (1); COMMIT",
        "ROLLBACK",
        "INSERT OR ROLLBACK INTO effects (entry) VALUES (2), (2)",
    ] {
        let mut tx = store.sqlite.begin().await.unwrap();
        write(&mut tx, 1000).await;
        // A handler that does not care about errors.
        let _ = sqlx::raw_sql(ends).execute(tx.conn().await.unwrap()).await;
        let _ =
            sqlx::raw_sql("INSERT INTO effects (entry) VALUES (3)").execute(tx.conn().await.unwrap()).await;
        let committed = store.sqlite.commit(tx, &settlement).await;
        let error = committed.expect_err(ends);
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Handler, Outcome::NotApplied), "{error:?}");
        assert_eq!(count(&store, "effects").await, 0, "{ends}");
        let mut tx = store.sqlite.begin().await.unwrap();
        assert_eq!(store.sqlite.settled(&mut tx, &settlement).await.unwrap(), []);
    }
}

#[tokio::test]
async fn g9_a_violated_constraint_is_the_handlers_and_nothing_takes_place() {
    let store = with_effects().await;
    let settlement = each(&store, [1]);
    let mut tx = store.sqlite.begin().await.unwrap();
    let orphan = "INSERT INTO effects (entry, customer) VALUES (1, 7)";
    sqlx::raw_sql(orphan).execute(tx.conn().await.unwrap()).await.unwrap();
    let error = store.sqlite.commit(tx, &settlement).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Handler, Outcome::NotApplied), "{error:?}");
    assert_eq!(count(&store, "effects").await, 0);
    done(&store, &settlement).await;
    assert_eq!(count(&store, "effects").await, 1);
}

#[tokio::test]
async fn g14_a_dropped_transaction_is_rolled_back_wherever_it_stood() {
    let store = with_effects().await;
    for polls in 0..30 {
        let mut tx = store.sqlite.begin().await.unwrap();
        if drop_after(polls, tx.conn()).await {
            let conn = tx.conn().await.unwrap();
            drop_after(polls / 2, sqlx::query("INSERT INTO effects (entry) VALUES (1)").execute(conn)).await;
        }
        drop(tx);
        // It waits for whatever is still open.
        store.sqlite.advance(&advance(&store, polls as u64)).await.unwrap();
    }
    assert_eq!(count(&store, "effects").await, 0);
}

#[tokio::test]
async fn what_the_watermark_has_passed_is_not_kept() {
    let store = with_effects().await;
    store.append(1..=9).await;
    store.ensure_group(0).await;
    store.read_group("me", 100).await;
    done(&store, &each(&store, [2, 4, 6, 8])).await;
    assert_eq!(count(&store, "highwater_settled").await, 4);
    store.sqlite.advance(&advance(&store, 4)).await.unwrap();
    assert_eq!(count(&store, "highwater_settled").await, 2, "after an advance");
    store.ack(1..=6).await;
    let settle = Settle::new(store.orders.clone(), vec![], Epoch(0), name("me"));
    store.sqlite.settle(&settle).await.unwrap();
    assert_eq!(count(&store, "highwater_settled").await, 1, "after acks and advance in one step");
    done(&store, &each(&store, [7, 9]).fused(true)).await;
    assert_eq!(count(&store, "highwater_settled").await, 2, "8 is pending, and settled like 9");
    let reset = ResetCheckpoint::new(store.orders.clone(), Position::at(id(1)));
    store.sqlite.reset(&reset).await.unwrap();
    assert_eq!(count(&store, "highwater_settled").await, 0, "after a reset");
}

#[tokio::test]
async fn a_transaction_of_another_database_is_refused() {
    let (store, other) = (with_effects().await, with_effects().await);
    let tx = other.sqlite.begin().await.unwrap();
    assert_eq!(kind(store.sqlite.commit(tx, &each(&store, [1])).await), ErrorKind::Invalid);
    let mut tx = store.sqlite.begin().await.unwrap();
    CheckpointBackend::close(&store.sqlite).await;
    assert_eq!(kind(store.sqlite.begin().await), ErrorKind::Closed);
    assert_eq!(kind(tx.conn().await.map(drop)), ErrorKind::Closed);
    assert_eq!(kind(store.sqlite.commit(tx, &each(&store, [1])).await), ErrorKind::Closed);
}

#[tokio::test]
async fn g9_a_transaction_of_the_callers_is_provisional_until_it_is_committed() {
    let store = with_effects().await;
    let (settlement, mut mine) = (each(&store, [1, 2]), store.raw().await);
    assert_eq!(kind(store.sqlite.settle_in(&mut mine, &settlement).await), ErrorKind::Invalid);
    for commit in [false, true] {
        let mut tx = mine.begin_with("BEGIN IMMEDIATE").await.unwrap();
        insert(&mut tx, 1).await;
        let Settling::Provisional(provisional) = store.sqlite.settle_in(&mut tx, &settlement).await.unwrap()
        else {
            panic!("nothing is settled")
        };
        assert_eq!(kind(provisional.confirm().await), ErrorKind::Handler, "it is still open");
        if commit {
            tx.commit().await.unwrap()
        } else {
            tx.rollback().await.unwrap()
        }
        let confirmed = provisional.confirm().await.map_err(|error| error.kind());
        assert_eq!(confirmed, if commit { Ok(()) } else { Err(ErrorKind::Handler) });
        assert_eq!(count(&store, "effects").await, i64::from(commit));
    }
    let mut tx = mine.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let again = store.sqlite.settle_in(&mut tx, &each(&store, [2, 3])).await.unwrap();
    assert!(matches!(again, Settling::AlreadySettled(ids) if ids == [id(2)]));
    tx.rollback().await.unwrap();

    // One that has read before others wrote cannot write any more.
    let mut tx = mine.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM effects").fetch_one(&mut *tx).await.unwrap();
    store.sqlite.advance(&advance(&store, 2)).await.unwrap();
    let error = store.sqlite.settle_in(&mut tx, &each(&store, [3])).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Never));
    tx.rollback().await.unwrap();

    let acquire = Acquire::new(store.orders.clone(), name("owner"), Duration::from_secs(9));
    store.sqlite.acquire(&acquire).await.unwrap();
    let mut tx = mine.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(kind(store.sqlite.settle_in(&mut tx, &each(&store, [3])).await), ErrorKind::Fenced);
    tx.rollback().await.unwrap();
}

const LAST: u64 = 300;

/// Not a test by itself: a process that handles the entries that are not settled, one to five in a transaction.
#[tokio::test]
async fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let sqlite = Sqlite::open(path).await.unwrap();
    handle_all(&sqlite).await;
}

async fn handle_all(sqlite: &Sqlite) {
    let orders = highwater::Subscription::new("orders", "billing").unwrap();
    let settlement = |ids: Vec<EntryId>| Settlement::each(orders.clone(), Epoch(0), name("me"), ids);
    loop {
        let mut tx = sqlite.begin().await.unwrap();
        let all = settlement((1..=LAST).map(id).collect());
        let settled: BTreeSet<_> = sqlite.settled(&mut tx, &all).await.unwrap().into_iter().collect();
        let size = 1 + settled.len() % 5;
        let batch: Vec<_> = all.ids.into_iter().filter(|id| !settled.contains(id)).take(size).collect();
        if batch.is_empty() {
            return;
        }
        for entry in &batch {
            write(&mut tx, entry.ms).await;
            println!("wrote {entry}");
        }
        match sqlite.commit(tx, &settlement(batch.clone())).await.unwrap() {
            Committed::Done { .. } => println!("settled {}", batch.len()),
            before => println!("another process was first: {before:?}"),
        }
    }
}

#[tokio::test]
async fn g9_processes_that_are_killed_in_a_transaction_leave_each_effect_once() {
    let store = with_effects().await;
    for round in 0..8 {
        let mut children: Vec<_> =
            (0..2).map(|_| Running::start_as("transaction::child", store.path(), Stdio::piped())).collect();
        // In the middle of a transaction, and each time at another place.
        let wrote = children[0].lines().filter(|line| line.contains("wrote")).nth(3 * round);
        assert!(wrote.is_some(), "there is enough to do for round {round}");
        children.iter_mut().for_each(Running::kill);
        let rows: Vec<i64> = sqlx::query_scalar("SELECT entry FROM effects ORDER BY entry")
            .fetch_all(&mut store.raw().await)
            .await
            .unwrap();
        let all = each(&store, 1..=LAST);
        let mut tx = store.sqlite.begin().await.unwrap();
        let settled = store.sqlite.settled(&mut tx, &all).await.unwrap();
        let settled: Vec<_> = settled.iter().map(|id| id.ms as i64).collect();
        assert_eq!(rows, settled, "effects and settled entries are the same, each once");
        if let Some(watermark) = (1..).zip(&settled).take_while(|(n, ms)| n == *ms).last() {
            store.sqlite.advance(&advance(&store, watermark.0 as u64)).await.unwrap();
        }
    }
    let mut child = Running::start_as("transaction::child", store.path(), Stdio::null());
    handle_all(&store.sqlite).await;
    assert!(child.wait());
    let rows: Vec<i64> = sqlx::query_scalar("SELECT entry FROM effects ORDER BY entry")
        .fetch_all(&mut store.raw().await)
        .await
        .unwrap();
    assert_eq!(rows, (1..=LAST as i64).collect::<Vec<_>>());
}
