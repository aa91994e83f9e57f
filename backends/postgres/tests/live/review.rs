//! Findings of a review.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use highwater::{Epoch, ErrorKind, Outcome, Position, SettledAhead, backend::*};
use highwater_postgres::Postgres;

use crate::store::*;

async fn set(store: &Store, setting: &str) -> Postgres {
    let database = store.options().get_database().unwrap().to_owned();
    store.sql(&format!("ALTER DATABASE \"{database}\" SET {setting}")).await;
    Postgres::connect(&store.url).await.unwrap()
}

#[tokio::test]
async fn a_database_that_reads_backslashes_in_every_literal() {
    let store = Store::new().await;
    let postgres = set(&store, "standard_conforming_strings = off").await;
    let position = Position::at(id(7));
    postgres
        .advance(&Advance::new(store.orders.clone(), Epoch(0), position.clone(), name("me")))
        .await
        .unwrap();
    assert_eq!(store.position().await, Some(position));
    handle(&postgres, &store.each(0, [8])).await.unwrap();
    assert_eq!(handle(&postgres, &store.each(0, [8])).await.unwrap(), Committed::AlreadySettled(ids([8])));
}

#[tokio::test]
async fn a_schema_made_where_backslashes_are_read_in_every_literal() {
    let store = Store::new().await;
    let database = store.options().get_database().unwrap().to_owned();
    store.sql("DROP SCHEMA highwater CASCADE").await;
    store.sql(&format!("ALTER DATABASE \"{database}\" SET standard_conforming_strings = off")).await;
    let postgres = Postgres::connect(&store.url).await.unwrap();
    postgres.ensure_schema().await.unwrap();
    let ahead = Position::at(id(3)).with_ahead(SettledAhead::new(id(9), ids([5, 7])));
    postgres.advance(&Advance::new(store.orders.clone(), Epoch(0), ahead.clone(), name("me"))).await.unwrap();
    assert_eq!(postgres.load(&store.orders).await.unwrap().unwrap().position, ahead);
}

#[tokio::test]
async fn g11_an_error_of_a_deferred_trigger_is_the_handlers_whatever_its_code() {
    let store = Store::new().await;
    for code in ["MY001", "42501", "42P01", "0A000"] {
        store.sql(&format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (n int); \
             CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$; \
             CREATE CONSTRAINT TRIGGER c AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()"
        )).await;
        let mut tx = store.postgres.begin().await.unwrap();
        sqlx::raw_sql("INSERT INTO t VALUES (1)").execute(&mut *tx).await.unwrap();
        let error = store.postgres.commit(tx, &store.each(0, [1])).await.unwrap_err();
        assert_eq!(
            (code, error.kind(), error.outcome()),
            (code, ErrorKind::Handler, Outcome::NotApplied),
            "{error:?}"
        );
    }
}

#[test]
fn g14_a_transaction_that_outlives_its_runtime_is_dropped_in_peace() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (tx, postgres) = runtime.block_on(async {
        let store = Store::new().await;
        let postgres = store.another().await;
        (postgres.begin().await.unwrap(), postgres)
    });
    drop(runtime);
    let panicked = Arc::new(AtomicBool::new(false));
    let (here, seen, before) = (thread::current().id(), Arc::clone(&panicked), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        seen.fetch_or(thread::current().id() == here, Ordering::Relaxed);
        before(info);
    }));
    drop(tx);
    drop(postgres);
    assert!(!panicked.load(Ordering::Relaxed));
}

#[tokio::test]
async fn g9_the_default_isolation_of_a_database_does_not_make_a_renewal_fail_a_transaction() {
    let store = Store::new().await;
    let postgres = set(&store, "default_transaction_isolation = 'serializable'").await;
    let Acquired::Owned(grant) = postgres
        .acquire(&Acquire::new(store.orders.clone(), name("me"), Duration::from_secs(3)))
        .await
        .unwrap()
    else {
        panic!("nobody else is there")
    };
    let mut tx = postgres.begin().await.unwrap();
    sqlx::raw_sql("SELECT count(*) FROM highwater.checkpoint").execute(&mut *tx).await.unwrap();
    postgres.renew(&Renew::new(store.orders.clone(), grant.epoch, Duration::from_secs(3))).await.unwrap();
    let settlement = store.each(grant.epoch.0, [1]).up_to(Position::at(id(1)));
    assert_eq!(postgres.commit(tx, &settlement).await.unwrap(), Committed::done(Some(id(1))));
}
