//! What opens a backend, and what settles in a transaction of the caller's own, each dropped at every await.

use highwater::{
    ConsumerName, EntryId, Epoch, Subscription,
    backend::{CheckpointBackend, Settlement},
};
use highwater_postgres::{Postgres, Settling};
use highwater_redis::{Client, Fred, Redis, Settings};
use highwater_sqlite::Sqlite;
use sqlx::{Connection, PgConnection, SqliteConnection};

use super::{Cut, at_every_await};
use crate::support::{fresh_postgres_url, shared_postgres_url, shared_redis_url, unique};

fn settlement() -> Settlement {
    let subscription = Subscription::new(unique("cancel"), "group").unwrap();
    Settlement::each(subscription, Epoch(0), ConsumerName::new("me").unwrap(), vec![EntryId::new(1, 0)])
}

async fn answers(store: &impl CheckpointBackend) {
    assert_eq!(store.load(&settlement().subscription).await.unwrap(), None);
}

#[tokio::test]
async fn g14_opening_redis() {
    let awaits = at_every_await("connect", async |cut| {
        cut.call(Redis::connect(shared_redis_url())).await.map(Result::unwrap);
        answers(&Redis::connect(shared_redis_url()).await.unwrap()).await;
    });
    assert!(awaits.await > 0);
    let awaits = at_every_await("open", async |cut| {
        let settings = || Settings::new(shared_redis_url());
        cut.call(Redis::<Fred>::open(settings())).await.map(Result::unwrap);
        answers(&Redis::<Fred>::open(settings()).await.unwrap()).await;
    });
    assert!(awaits.await > 0);
    for client in [Client::RedisRs, Client::Fred] {
        let awaits = at_every_await("connect of any client", async |cut| {
            cut.call(highwater_redis::connect(shared_redis_url(), client)).await.map(Result::unwrap);
            answers(&highwater_redis::connect(shared_redis_url(), client).await.unwrap()).await;
        });
        assert!(awaits.await > 0);
    }
}

#[tokio::test]
async fn g14_opening_postgres_and_its_schema() {
    let awaits = at_every_await("connect", async |cut| {
        let url = shared_postgres_url();
        cut.call(Postgres::connect(&url)).await.map(Result::unwrap);
        let postgres = Postgres::connect(&url).await.unwrap();
        cut_free(&postgres).await;
    });
    awaits.await;
    let url = fresh_postgres_url().await;
    let postgres = Postgres::connect(&url).await.unwrap();
    let awaits = at_every_await("ensure_schema", async |cut| {
        cut.call(postgres.ensure_schema()).await.map(Result::unwrap);
        cut_free(&postgres).await;
    });
    assert!(awaits.await > 0);
}

/// Whatever was dropped, the schema can be made, and the store answers.
async fn cut_free(postgres: &Postgres) {
    postgres.ensure_schema().await.unwrap();
    answers(postgres).await;
}

#[tokio::test]
async fn g14_opening_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let awaits = at_every_await("open", async |cut| {
        let path = folder.path().join(unique("cancel.db"));
        cut.call(Sqlite::open(&path)).await.map(Result::unwrap);
        answers(&Sqlite::open(&path).await.unwrap()).await;
    });
    assert!(awaits.await > 0);
}

/// What speaks to its server by a connection that is open. One that answers before it is waited for leaves nothing to drop.
async fn at_some_await(operation: &str, mut round: impl AsyncFnMut(&Cut)) {
    for _ in 0..20 {
        if at_every_await(operation, &mut round).await > 0 {
            return;
        }
    }
    panic!("{operation} never waits, so nothing was dropped");
}

#[tokio::test]
async fn g14_settling_in_a_transaction_of_ones_own_in_postgres() {
    let url = shared_postgres_url();
    let postgres = Postgres::connect(&url).await.unwrap();
    postgres.ensure_schema().await.unwrap();
    for operation in ["settle_in", "confirm"] {
        at_some_await(operation, async |cut| {
            let settlement = settlement();
            let mut conn = PgConnection::connect(&url).await.unwrap();
            let mut tx = conn.begin().await.unwrap();
            if operation == "settle_in" {
                cut.call(postgres.settle_in(&mut tx, &settlement)).await.map(Result::unwrap);
                // As its documentation says.
                tx.rollback().await.unwrap();
                tx = conn.begin().await.unwrap();
            }
            let Settling::Provisional(provisional) = postgres.settle_in(&mut tx, &settlement).await.unwrap()
            else {
                panic!("what was rolled back is settled");
            };
            tx.commit().await.unwrap();
            if operation == "confirm" {
                cut.call(provisional.confirm()).await.map(Result::unwrap);
            }
            provisional.confirm().await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn g14_settling_in_a_transaction_of_ones_own_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cancel.db").to_str().unwrap().to_owned();
    let sqlite = Sqlite::open(&path).await.unwrap();
    for operation in ["settle_in", "confirm"] {
        at_some_await(operation, async |cut| {
            let settlement = settlement();
            let mut conn = SqliteConnection::connect(&path).await.unwrap();
            let mut tx = conn.begin().await.unwrap();
            if operation == "settle_in" {
                cut.call(sqlite.settle_in(&mut tx, &settlement)).await.map(Result::unwrap);
                tx.rollback().await.unwrap();
                tx = conn.begin().await.unwrap();
            }
            let settling = sqlite.settle_in(&mut tx, &settlement).await.unwrap();
            let highwater_sqlite::Settling::Provisional(provisional) = settling else {
                panic!("what was rolled back is settled");
            };
            tx.commit().await.unwrap();
            if operation == "confirm" {
                cut.call(provisional.confirm()).await.map(Result::unwrap);
            }
            provisional.confirm().await.unwrap();
        })
        .await;
    }
}
