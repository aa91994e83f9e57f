//! Settling in a transaction of the caller's own.

use std::time::Duration;

use highwater::{Epoch, ErrorKind, Outcome, backend::*};
use highwater_postgres::{Provisional, Settings, SettledIn};
use sqlx::{Postgres, Transaction};

use crate::{store::*, support::eventually};

fn provisional(settled: SettledIn) -> Provisional {
    match settled {
        SettledIn::Provisional(provisional) => provisional,
        before => panic!("{before:?}"),
    }
}

async fn begin(store: &Store, entry: &str) -> Transaction<'static, Postgres> {
    let mut tx = store.pool.begin().await.unwrap();
    sqlx::query("INSERT INTO effects VALUES ($1)").bind(entry).execute(&mut *tx).await.unwrap();
    tx
}

#[tokio::test]
async fn g9_a_settlement_takes_place_with_the_transaction_that_it_is_in() {
    let store = Store::new().await;
    for (n, settlement) in [store.each(0, [1]), store.up_to(Epoch(0), 2, 3)].into_iter().enumerate() {
        let mut tx = begin(&store, &n.to_string()).await;
        let provisional = provisional(store.postgres.settle_in(&mut tx, &settlement).await.unwrap());
        // Confirming waits until the transaction has ended.
        let (confirmed, committed) = tokio::join!(provisional.confirm(), async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            tx.commit().await
        });
        committed.unwrap();
        let watermark = settlement.position.as_ref().map(|position| position.watermark);
        assert_eq!(confirmed.unwrap(), Committed::done(watermark));
        assert_eq!(provisional.confirm().await.unwrap(), Committed::done(watermark), "again is harmless");

        let mut tx = begin(&store, "twice").await;
        match store.postgres.settle_in(&mut tx, &settlement).await.unwrap() {
            SettledIn::AlreadySettled(before) => assert_eq!(before, settlement.ids),
            other => panic!("{other:?}"),
        }
        tx.rollback().await.unwrap();
    }
    assert_eq!(store.effects().await, "0 1");
}

#[tokio::test]
async fn g9_a_transaction_that_was_rolled_back_is_not_confirmed() {
    let store = Store::new().await;
    let mut tx = begin(&store, "1").await;
    let settled = provisional(store.postgres.settle_in(&mut tx, &store.each(0, [1])).await.unwrap());
    tx.rollback().await.unwrap();
    assert_eq!(kind(settled.confirm().await), ErrorKind::Handler);

    // An error after it is ignored, and the driver calls the rollback a success.
    let mut tx = begin(&store, "1").await;
    let settled = provisional(store.postgres.settle_in(&mut tx, &store.each(0, [1])).await.unwrap());
    let _ = sqlx::query("SELECT * FROM nope").execute(&mut *tx).await.unwrap_err();
    tx.commit().await.unwrap();
    assert_eq!(kind(settled.confirm().await), ErrorKind::Handler);
    assert_eq!((store.effects().await.as_str(), store.position().await), ("", None));

    let mut tx = begin(&store, "1").await;
    let _ = sqlx::query("SELECT * FROM nope").execute(&mut *tx).await.unwrap_err();
    assert_eq!(kind(store.postgres.settle_in(&mut tx, &store.each(0, [1])).await), ErrorKind::Handler);
    tx.rollback().await.unwrap();
    assert_eq!(store.handle(&store.each(0, [1])).await.unwrap(), Committed::done(None));
}

#[tokio::test]
async fn g9_outside_of_a_transaction_nothing_is_settled() {
    let store = Store::new().await;
    let mut conn = store.pool.acquire().await.unwrap();
    for settlement in [store.each(0, [1]), store.up_to(Epoch(0), 1, 2)] {
        assert_eq!(kind(store.postgres.settle_in(&mut conn, &settlement).await), ErrorKind::Invalid);
        assert_eq!(store.sql("SELECT count(*) FROM highwater.checkpoint").await, "0");
    }
}

#[tokio::test]
async fn what_is_refused_leaves_the_transaction_as_it_was() {
    let store = Store::new().await;
    store.handle(&store.each(0, [1])).await.unwrap();
    let mut tx = begin(&store, "mine").await;
    let both = store.each(0, [1, 2]);
    assert!(matches!(store.postgres.settle_in(&mut tx, &both).await.unwrap(), SettledIn::AlreadySettled(_)));
    assert_eq!(kind(store.postgres.settle_in(&mut tx, &store.each(7, [2])).await), ErrorKind::Invalid);
    tx.commit().await.unwrap();
    assert_eq!(store.effects().await, "1 mine");
    assert_eq!(
        store.sql("SELECT count(*) FROM highwater.settled").await,
        "1",
        "2 was not settled on the way"
    );
}

#[tokio::test]
async fn g4_a_transaction_that_stands_still_after_it_settled_is_ended_for_the_next_owner() {
    let settings = Settings::default().commit_timeout(Duration::from_millis(300));
    let store = Store::with(settings).await;
    let old = store.acquire("a").await;
    for (n, mut settlement) in [store.up_to(old, 1, 2), store.each(old.0, [1])].into_iter().enumerate() {
        settlement.epoch = Epoch(old.0 + n as u64);
        let mut tx = begin(&store, "zombie").await;
        let settled = provisional(store.postgres.settle_in(&mut tx, &settlement).await.unwrap());
        // As if the process were stopped here. The next owner waits, and knows then where it stands.
        let request = Acquire::new(store.orders.clone(), name("a"), LONG);
        let acquired = store.postgres.acquire(&request).await.unwrap();
        assert_eq!(acquired, Acquired::Owned(Grant::new(settlement.epoch.next(), None)));
        let late = tx.commit().await;
        assert!(late.is_err(), "the server has ended it");
        assert_eq!(kind(settled.confirm().await), ErrorKind::Handler);
    }
    assert_eq!((store.effects().await.as_str(), store.position().await), ("", None));
}

#[tokio::test]
async fn a_transaction_that_stays_open_is_unknown() {
    let settings = Settings::default().response_timeout(Duration::from_millis(200));
    let settings = settings.commit_timeout(Duration::from_millis(150));
    let store = Store::with(settings).await;
    let mut tx = begin(&store, "1").await;
    let settled = provisional(store.postgres.settle_in(&mut tx, &store.each(0, [1])).await.unwrap());
    // It is not idle.
    let busy = tokio::spawn(async move {
        sqlx::raw_sql("SELECT pg_sleep(0.6)").execute(&mut *tx).await.unwrap();
        tx.commit().await
    });
    let error = settled.confirm().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    busy.await.unwrap().unwrap();
    eventually("it is confirmed", Duration::from_secs(5), async || settled.confirm().await.is_ok()).await;
}
