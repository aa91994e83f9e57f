//! Transactions, dropped at every await: effects and checkpoint are there together, or neither.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use highwater::{
    Consumer, ConsumerName, Delivery, EntryId, Epoch, HandlerError, Ownership, Subscription,
    backend::{Committed, Read, Settlement, TransactionalCheckpoint},
    conformance::Effects,
    layer::Operation,
};
use highwater_postgres::Postgres;
use highwater_redis::Redis;
use highwater_sqlite::Sqlite;
use tokio::sync::{Notify, oneshot};

use super::{Cut, at_every_await, redis};
use crate::{
    delivery::{Place, number},
    effects::{PostgresRows, RedisTables, SqliteRows, shared_postgres, sqlite},
    support::unique,
};

pub(super) const OPERATIONS: &[Operation] = &[Operation::Begin, Operation::Settled, Operation::Commit];

const COUNT: u64 = 4;

/// Begins, writes, settles and commits, with the call of this operation dropped.
async fn transaction<C, E>(
    store: &C,
    rows: &E,
    operation: Operation,
    table: &str,
    settlement: &Settlement,
    cut: &Cut,
) where
    C: TransactionalCheckpoint,
    E: Effects<C::Tx>,
{
    if operation == Operation::Begin {
        cut.call(store.begin()).await.map(Result::unwrap);
        return;
    }
    let mut tx = store.begin().await.unwrap();
    rows.write(&mut tx, table, settlement.ids[0]).await.unwrap();
    match operation {
        Operation::Settled => drop(cut.call(store.settled(&mut tx, settlement)).await.map(Result::unwrap)),
        Operation::Commit => drop(cut.call(store.commit(tx, settlement)).await.map(Result::unwrap)),
        _ => panic!("{operation} has no case"),
    }
}

async fn all<C, E>(store: &C, rows: &E)
where
    C: TransactionalCheckpoint,
    E: Effects<C::Tx>,
{
    for &operation in OPERATIONS {
        let awaits = at_every_await(operation.name(), async |cut| {
            let (subscription, table) =
                (Subscription::new(unique("cancel"), "group").unwrap(), unique("table"));
            let me = ConsumerName::new("me").unwrap();
            let ids = vec![EntryId::new(1, 0)];
            let settlement = Settlement::each(subscription, Epoch(0), me, ids.clone());
            transaction(store, rows, operation, &table, &settlement, cut).await;
            // Who comes next does it if it was not done. What was dropped may still be under way, and is waited for.
            let mut tx = store.begin().await.unwrap();
            rows.write(&mut tx, &table, ids[0]).await.unwrap();
            let committed = store.commit(tx, &settlement).await.unwrap();
            assert!(
                matches!(committed, Committed::Done { .. }) || operation == Operation::Commit,
                "{operation} settles nothing: {committed:?}"
            );
            assert_eq!(rows.rows(&table).await.unwrap(), ids, "G9: once");
        });
        awaits.await;
    }
}

/// A consumer whose handler writes a row for each entry.
async fn consume<C, E>(
    (place, store, rows): &(Place, C, Arc<E>),
    (ownership, batches): (Ownership, bool),
    table: &str,
    handled: &Arc<Notify>,
    stop: impl Future + Send,
) where
    C: TransactionalCheckpoint + Clone,
    E: Effects<C::Tx>,
{
    let consumer = Consumer::builder(place.subscription.clone(), Arc::clone(&place.stream), store.clone())
        .configure(|settings| {
            settings.ownership = ownership;
            settings.ttl = Duration::from_millis(100);
            settings.claim_interval = Duration::from_millis(10);
            // What was acked and not advanced is, once it is idle.
            settings.probe_interval = Duration::from_millis(10);
        })
        .build()
        .unwrap();
    let (rows, table, handled) = (Arc::clone(rows), table.to_owned(), Arc::clone(handled));
    if batches {
        let run = consumer.run_transactional_batches(
            move |tx, batch| {
                let (rows, table, handled) = (Arc::clone(&rows), table.clone(), Arc::clone(&handled));
                async move {
                    for delivery in &batch {
                        write(&*rows, tx, &table, delivery, &handled).await?;
                    }
                    Ok::<_, HandlerError>(())
                }
                .boxed()
            },
            stop,
        );
        run.await.unwrap();
        return;
    }
    let run = consumer.run_transactional(
        move |tx, delivery| {
            let (rows, table, handled) = (Arc::clone(&rows), table.clone(), Arc::clone(&handled));
            async move { write(&*rows, tx, &table, &delivery, &handled).await }.boxed()
        },
        stop,
    );
    run.await.unwrap();
}

async fn write<T: Send>(
    rows: &impl Effects<T>,
    tx: &mut T,
    table: &str,
    delivery: &Delivery,
    handled: &Notify,
) -> Result<(), HandlerError> {
    rows.write(tx, table, delivery.id()).await.map_err(HandlerError::retry)?;
    if number(delivery) == COUNT {
        handled.notify_one();
    }
    Ok(())
}

/// A transactional consumer is dropped at each of its awaits, and another one finishes.
async fn dropped<C, E>(place: impl AsyncFn() -> (Place, C, Arc<E>), way: (Ownership, bool))
where
    C: TransactionalCheckpoint + Clone,
    E: Effects<C::Tx>,
{
    let awaits = at_every_await("a consumer", async |cut| {
        let place = place().await;
        place.0.append(COUNT).await;
        let (table, handled) = (unique("table"), Arc::new(Notify::new()));
        cut.call(consume(&place, way, &table, &handled, handled.notified())).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let next = consume(&place, way, &table, &handled, async { drop(stopped.await) });
        let settled = async {
            place.0.until_all_settled().await;
            stop.send(()).unwrap();
        };
        tokio::join!(next, settled);
        let mut rows = place.2.rows(&table).await.unwrap();
        rows.sort_unstable();
        let read = Read::new(place.0.subscription.stream.clone(), EntryId::ZERO, 100);
        let all: Vec<_> = place.0.stream.read(&read).await.unwrap().iter().map(|entry| entry.id).collect();
        assert_eq!(rows, all, "G9: each once: {way:?}");
    });
    assert!(awaits.await > 0, "nothing was dropped");
}

async fn in_redis() -> (Place, Redis, Arc<RedisTables>) {
    let store = redis().await;
    let shared = Arc::new(store.clone());
    (Place::new(shared.clone(), shared), store.clone(), Arc::new(RedisTables(store)))
}

async fn in_postgres() -> (Place, Postgres, Arc<PostgresRows>) {
    let (postgres, rows) = shared_postgres().await;
    (Place::new(Arc::new(redis().await), Arc::new(postgres.clone())), postgres, Arc::new(rows))
}

async fn in_sqlite() -> (Place, Sqlite, Arc<SqliteRows>) {
    let (store, rows) = sqlite().await;
    let shared = Arc::new(store.clone());
    (Place::new(shared.clone(), shared), store, Arc::new(rows))
}

#[tokio::test]
async fn g14_each_call_of_a_transaction_in_redis() {
    let (_, store, rows) = in_redis().await;
    all(&store, &*rows).await;
}

#[tokio::test]
async fn g14_each_call_of_a_transaction_in_postgres() {
    let (_, store, rows) = in_postgres().await;
    all(&store, &*rows).await;
}

#[tokio::test]
async fn g14_each_call_of_a_transaction_in_sqlite() {
    let (_, store, rows) = in_sqlite().await;
    all(&store, &*rows).await;
}

#[tokio::test]
async fn g14_a_transactional_consumer_of_redis() {
    dropped(in_redis, (Ownership::Shared, false)).await;
}

#[tokio::test]
async fn g14_a_transactional_owner_in_postgres() {
    dropped(in_postgres, (Ownership::Exclusive, true)).await;
}

#[tokio::test]
async fn g14_a_transactional_consumer_in_sqlite() {
    dropped(in_sqlite, (Ownership::Shared, true)).await;
}
