//! Effects and checkpoint in one transaction: once, fenced, and whatever the handler does to it.

use std::time::Duration;

use highwater::{Epoch, ErrorKind, Outcome, Position, Retry, SettledAhead, backend::*};
use highwater_postgres::{Postgres, Settings, Tx};
use sqlx::Connection;

use crate::{store::*, support::eventually};

async fn write(tx: &mut Tx, entry: &str) {
    sqlx::query("INSERT INTO effects VALUES ($1)").bind(entry).execute(&mut **tx).await.unwrap();
}

#[tokio::test]
async fn g9_effects_and_checkpoint_commit_together_and_once() {
    let store = Store::new().await;
    let epoch = store.acquire("me").await;
    let done = store.handle(&store.up_to(epoch, 1, 3)).await.unwrap();
    assert_eq!(done, Committed::done(Some(id(3))));
    let again = store.handle(&store.up_to(epoch, 3, 5)).await.unwrap();
    assert_eq!(again, Committed::AlreadySettled(ids([3])));
    assert_eq!((store.effects().await.as_str(), store.watermark().await), ("1 2 3", Some(id(3))));
    // What was settled ahead is settled too.
    let ahead = Position::at(id(3)).with_ahead(SettledAhead::new(id(7), [id(4), id(6)]));
    let out_of_order = store.each(epoch.0, [7]).up_to(ahead);
    store.handle(&out_of_order).await.unwrap();
    assert_eq!(store.handle(&out_of_order).await.unwrap(), Committed::AlreadySettled(ids([7])));
    assert_eq!(store.effects().await, "1 2 3 7");
}

#[tokio::test]
async fn g9_entries_that_are_settled_each_by_itself_are_settled_once_and_pruned() {
    let store = Store::new().await;
    assert_eq!(store.handle(&store.each(0, [2, 5])).await.unwrap(), Committed::done(None));
    assert_eq!(store.position().await, None, "settling is no watermark");
    let again = store.handle(&store.each(0, [2, 3])).await.unwrap();
    assert_eq!(again, Committed::AlreadySettled(ids([2])));
    assert_eq!(store.effects().await, "2 5");
    store.handle(&store.each(0, [3])).await.unwrap();
    let mut tx = store.postgres.begin().await.unwrap();
    let settled = store.postgres.settled(&mut tx, &store.each(0, 1..=6)).await.unwrap();
    assert_eq!(settled, ids([2, 3, 5]));
    drop(tx);

    let ahead = Position::at(id(3)).with_ahead(SettledAhead::new(id(9), [id(4), id(8)]));
    let advance = Advance::new(store.orders.clone(), Epoch(0), ahead, name("me"));
    store.postgres.advance(&advance).await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM highwater.settled").await, "1", "5 is above the watermark");
    for settled in [1, 3, 5, 6, 9] {
        let answer = store.handle(&store.each(0, [settled])).await.unwrap();
        assert_eq!(answer, Committed::AlreadySettled(ids([settled])));
    }
    store.handle(&store.each(0, [4])).await.unwrap();
    assert_eq!(store.effects().await, "2 3 4 5");
    let reset = ResetCheckpoint::new(store.orders.clone(), Position::default());
    let epoch = store.postgres.reset(&reset).await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM highwater.settled").await, "0");
    store.handle(&store.each(epoch.0, [5])).await.unwrap();
    assert_eq!(store.effects().await, "2 3 4 5 5", "a reset begins anew");
}

#[tokio::test]
async fn what_the_watermark_has_passed_is_dropped_whoever_moved_it() {
    let store = Store::new().await;
    let kept = async || store.sql("SELECT count(*) FROM highwater.settled").await;
    let advance = async |epoch, ms| store.postgres.advance(&store.advance(epoch, ms)).await.unwrap();
    store.handle(&store.each(0, [1, 2, 3])).await.unwrap();
    advance(0, 1).await;
    advance(0, 2).await;
    assert_eq!(kept().await, "1");
    // One that has settled nothing drops nothing.
    store.handle(&store.each(0, [4, 5])).await.unwrap();
    let other = Postgres::from_pool(pool(&store.url, 4)).unwrap();
    other.advance(&store.advance(0, 5)).await.unwrap();
    assert_eq!(kept().await, "3");
    advance(0, 6).await;
    assert_eq!(kept().await, "0");
    // A reset leads back below what was dropped.
    let reset = ResetCheckpoint::new(store.orders.clone(), Position::default());
    let epoch = other.reset(&reset).await.unwrap().0;
    store.handle(&store.each(epoch, [1, 2, 7])).await.unwrap();
    advance(epoch, 2).await;
    assert_eq!(kept().await, "1");
}

#[tokio::test]
async fn g4_a_transaction_of_another_epoch_does_not_take_place() {
    let store = Store::new().await;
    assert_eq!(kind(store.handle(&store.each(1, [1])).await), ErrorKind::Invalid);
    assert_eq!(kind(store.handle(&store.up_to(Epoch(1), 1, 2)).await), ErrorKind::Invalid);
    let old = store.acquire("a").await;
    // A zombie: its transaction is open while another takes over.
    let mut tx = store.postgres.begin().await.unwrap();
    write(&mut tx, "zombie").await;
    let new = store.acquire("a").await;
    let error = store.postgres.commit(tx, &store.up_to(old, 1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Fenced, Outcome::NotApplied));
    assert_eq!(kind(store.handle(&store.each(old.0, [1])).await), ErrorKind::Fenced);
    assert_eq!(kind(store.postgres.advance(&store.advance(old.0, 9)).await), ErrorKind::Fenced);
    assert_eq!(kind(store.handle(&store.up_to(new.next(), 1, 2)).await), ErrorKind::Invalid);
    assert_eq!((store.effects().await.as_str(), store.position().await), ("", None));
    store.handle(&store.up_to(new, 1, 2)).await.unwrap();
    // Also where the record is there, and the old owner would be the first with these.
    assert_eq!(kind(store.handle(&store.up_to(old, 3, 4)).await), ErrorKind::Fenced);
    assert_eq!(kind(store.handle(&store.each(old.0, [5])).await), ErrorKind::Fenced);
    assert_eq!(kind(store.postgres.advance(&store.advance(old.0, 9)).await), ErrorKind::Fenced);
    assert_eq!((store.effects().await.as_str(), store.watermark().await), ("1 2", Some(id(2))));
}

#[tokio::test]
async fn g9_an_error_that_the_handler_swallowed_is_no_commit() {
    let store = Store::new().await;
    for settlement in [store.each(0, [1]), store.up_to(Epoch(0), 1, 1)] {
        let mut tx = store.postgres.begin().await.unwrap();
        write(&mut tx, "lost").await;
        let _ = sqlx::query("SELECT * FROM nope").execute(&mut *tx).await.unwrap_err();
        let error = store.postgres.commit(tx, &settlement).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Handler, Outcome::NotApplied), "{error:?}");
        assert!(error.to_string().contains("a statement of the handler failed"), "{error}");
        assert_eq!((store.effects().await.as_str(), store.position().await), ("", None));
    }
}

#[tokio::test]
async fn g9_what_breaks_a_constraint_at_the_end_is_no_commit() {
    let store = Store::new().await;
    store.sql("CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)").await;
    let mut tx = store.postgres.begin().await.unwrap();
    sqlx::raw_sql("INSERT INTO once VALUES (1), (1)").execute(&mut *tx).await.unwrap();
    let error = store.postgres.commit(tx, &store.each(0, [1])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Handler, Outcome::NotApplied), "{error:?}");
    assert_eq!(store.sql("SELECT count(*) FROM highwater.settled").await, "0");
}

#[tokio::test]
async fn g9_a_handler_that_ends_the_transaction_itself_settles_nothing() {
    let store = Store::new().await;
    store.postgres.advance(&store.advance(0, 0)).await.unwrap();
    for (end, effects) in [("ROLLBACK", ""), ("COMMIT", "1"), ("COMMIT; BEGIN", "1 1")] {
        for settlement in [store.each(0, [1]), store.up_to(Epoch(0), 1, 1)] {
            store.sql("DELETE FROM effects").await;
            let mut tx = store.postgres.begin().await.unwrap();
            write(&mut tx, "1").await;
            sqlx::raw_sql(end).execute(&mut *tx).await.unwrap();
            let error = store.postgres.commit(tx, &settlement).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Handler, "{end}: {error:?}");
            assert!(effects.starts_with(&store.effects().await), "{end}");
            assert_eq!(store.watermark().await, Some(id(0)), "{end}");
            assert_eq!(store.sql("SELECT count(*) FROM highwater.settled").await, "0", "{end}");
        }
    }
}

#[tokio::test]
async fn a_nested_begin_is_a_savepoint_and_one_that_is_left_open_is_no_commit() {
    let store = Store::new().await;
    let mut tx = store.postgres.begin().await.unwrap();
    write(&mut tx, "kept").await;
    let mut nested = tx.begin().await.unwrap();
    sqlx::raw_sql("INSERT INTO effects VALUES ('dropped')").execute(&mut *nested).await.unwrap();
    let _ = sqlx::query("SELECT * FROM nope").execute(&mut *nested).await.unwrap_err();
    nested.rollback().await.unwrap();
    store.postgres.commit(tx, &store.each(0, [1])).await.unwrap();
    assert_eq!(store.effects().await, "kept");

    let mut tx = store.postgres.begin().await.unwrap();
    std::mem::forget(tx.begin().await.unwrap());
    write(&mut tx, "lost").await;
    assert_eq!(kind(store.postgres.commit(tx, &store.each(0, [2])).await), ErrorKind::Handler);
    assert_eq!(store.effects().await, "kept");
}

#[tokio::test]
async fn g14_a_dropped_transaction_is_rolled_back_and_its_connection_used_again() {
    let store = Store::new().await;
    for round in 0..40 {
        let mut tx = store.postgres.begin().await.unwrap();
        write(&mut tx, "never").await;
        if round % 2 == 0 {
            // In the middle of a statement.
            let slow = sqlx::query("SELECT pg_sleep(0.02)").execute(&mut *tx);
            let _ = tokio::time::timeout(Duration::from_millis(1), slow).await;
        }
        drop(tx);
    }
    store.handle(&store.each(0, [1])).await.unwrap();
    assert_eq!(store.effects().await, "1");
    eventually("nothing is open", Duration::from_secs(10), async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
        store.sql(open).await == "0"
    })
    .await;
}

#[tokio::test]
async fn a_settlement_of_nothing_or_out_of_order_is_invalid() {
    let store = Store::new().await;
    for bad in [store.each(0, []), store.each(0, [2, 1]), store.each(0, [1, 1])] {
        assert_eq!(kind(store.handle(&bad).await), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_lock_that_somebody_keeps_is_waited_for_and_then_unavailable() {
    let settings = Settings::default()
        .response_timeout(Duration::from_secs(2))
        .commit_timeout(Duration::from_millis(100));
    let store = Store::with(settings).await;
    store.postgres.advance(&store.advance(0, 1)).await.unwrap();
    let mut keeper = store.pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT * FROM highwater.checkpoint FOR UPDATE").execute(&mut *keeper).await.unwrap();
    let acquire = Acquire::new(store.orders.clone(), name("a"), LONG);
    let (advance, each, up_to) = (store.advance(0, 2), store.each(0, [2]), store.up_to(Epoch(0), 2, 3));
    let (advanced, settled, committed, acquired) = tokio::join!(
        store.postgres.advance(&advance),
        store.handle(&each),
        store.handle(&up_to),
        store.postgres.acquire(&acquire),
    );
    let errors = [advanced.unwrap_err(), settled.unwrap_err(), committed.unwrap_err(), acquired.unwrap_err()];
    for error in errors {
        let what = (error.kind(), error.retry(), error.outcome());
        assert_eq!(what, (ErrorKind::Unavailable, Retry::Now, Outcome::NotApplied), "{error:?}");
    }
    keeper.rollback().await.unwrap();
    assert_eq!(store.effects().await, "");
    assert!(store.postgres.advance(&store.advance(0, 2)).await.unwrap().moved);
}

#[tokio::test]
async fn g9_under_serializable_a_conflict_is_repeated_and_not_lost() {
    let store = Store::new().await;
    let database = store.options().get_database().unwrap().to_owned();
    store
        .sql(&format!("ALTER DATABASE \"{database}\" SET default_transaction_isolation = serializable"))
        .await;
    let postgres = Postgres::connect(&store.url).await.unwrap();
    let (mut first, mut second) = (postgres.begin().await.unwrap(), postgres.begin().await.unwrap());
    write(&mut first, "1").await;
    write(&mut second, "2").await;
    postgres.commit(first, &store.each(0, [1])).await.unwrap();
    match postgres.commit(second, &store.each(0, [2])).await {
        Ok(done) => assert_eq!(done, Committed::done(None)),
        Err(error) => {
            let what = (error.kind(), error.retry(), error.outcome());
            assert_eq!(what, (ErrorKind::Unavailable, Retry::Now, Outcome::NotApplied), "{error:?}");
            handle(&postgres, &store.each(0, [2])).await.unwrap();
        }
    }
    assert_eq!(store.effects().await, "1 2");
    assert!(postgres.advance(&store.advance(0, 2)).await.unwrap().moved);
}
