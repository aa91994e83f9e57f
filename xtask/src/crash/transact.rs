//! The process whose handler writes rows in the transaction of its checkpoint.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use highwater::{
    Consumer, Delivery, Error, ErrorKind, HandlerError, Observation, Report, Subscription,
    backend::{StreamBackend, TransactionalCheckpoint},
};
use highwater_postgres::Postgres;
use highwater_redis::Client;
use highwater_sqlite::Sqlite;
use tokio::time;

use super::child::stdin_lines;
use crate::{
    Result,
    cli::{self, Backend, Ownership, Rows, Transact},
};

/// The line that says that this process owns the subscription now.
pub const ACQUIRED: &str = "acquired";
/// The line that says that it did, and does not any more.
pub const LOST: &str = "lost";
/// A server that was killed is back within this.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The most entries of one transaction.
const BATCH_MAX: usize = 200;

/// Consumes until the standard input closes; every third process one entry at a time, the others in batches.
pub async fn transact(args: &Transact) -> Result {
    let stream: Arc<dyn StreamBackend> = match (args.place.backend, args.client) {
        (Backend::Redis, cli::Client::RedisRs) => {
            highwater_redis::connect(&args.place.at, Client::RedisRs).await?
        }
        (Backend::Redis, cli::Client::Fred) => highwater_redis::connect(&args.place.at, Client::Fred).await?,
        (Backend::Sqlite, _) => Arc::new(Sqlite::open(&args.place.at).await?),
    };
    let report = match args.checkpoint {
        Rows::Postgres => {
            let store = postgres(&args.store).await?;
            into_postgres(args, consumer(args, stream, store)?).await?
        }
        Rows::Sqlite => into_sqlite(args, consumer(args, stream, Sqlite::open(&args.store).await?)?).await?,
    };
    println!("{report:?}");
    Ok(())
}

/// Three processes do this at once on an empty database. One that starts while the server is away waits, as whoever starts
/// processes would start it again.
async fn postgres(url: &str) -> highwater::Result<Postgres> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let opened = match Postgres::connect(url).await {
            Ok(store) => store.ensure_schema().await.map(|()| store),
            Err(error) => Err(error),
        };
        match opened {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                time::sleep(Duration::from_millis(50)).await;
            }
            opened => return opened,
        }
    }
}

fn consumer<C: TransactionalCheckpoint>(
    args: &Transact,
    stream: Arc<dyn StreamBackend>,
    store: C,
) -> Result<Consumer<Arc<dyn StreamBackend>, C>> {
    let builder = Consumer::builder(Subscription::new(&args.place.stream, &args.group)?, stream, store)
        .batch_entries_max(BATCH_MAX)
        .observer(|_: &Subscription, seen: &Observation<'_>| match seen {
            Observation::Acquired => println!("{ACQUIRED}"),
            Observation::Lost(_) => println!("{LOST}"),
            _ => {}
        });
    Ok(match args.ownership {
        Ownership::Shared => builder.shared(),
        Ownership::Exclusive => builder.exclusive(),
    }
    .build()?)
}

async fn into_postgres(
    args: &Transact,
    consumer: Consumer<Arc<dyn StreamBackend>, Postgres>,
) -> highwater::Result<Report> {
    const INSERT: &str =
        "INSERT INTO effects SELECT n, i, $3 FROM unnest($1::bigint[], $2::text[]) AS e (n, i)";
    let run = i64::from(args.run);
    if args.run.is_multiple_of(3) {
        return consumer
            .run_transactional(
                move |tx, delivery| {
                    Box::pin(async move {
                        let (numbers, ids) = columns(&[delivery])?;
                        sqlx::query(INSERT).bind(numbers).bind(ids).bind(run).execute(&mut **tx).await?;
                        Ok::<_, HandlerError>(())
                    })
                },
                stop(),
            )
            .await;
    }
    consumer
        .run_transactional_batches(
            move |tx, batch| {
                Box::pin(async move {
                    let (numbers, ids) = columns(&batch)?;
                    sqlx::query(INSERT).bind(numbers).bind(ids).bind(run).execute(&mut **tx).await?;
                    Ok::<_, HandlerError>(())
                })
            },
            stop(),
        )
        .await
}

async fn into_sqlite(
    args: &Transact,
    consumer: Consumer<Arc<dyn StreamBackend>, Sqlite>,
) -> highwater::Result<Report> {
    let run = i64::from(args.run);
    consumer
        .run_transactional_batches(
            move |tx, batch| {
                Box::pin(async move {
                    let (numbers, ids) = columns(&batch)?;
                    for (number, id) in numbers.into_iter().zip(ids) {
                        let insert = sqlx::query("INSERT INTO effects VALUES (?, ?, ?)");
                        insert.bind(number).bind(id).bind(run).execute(tx.conn().await?).await?;
                    }
                    Ok::<_, HandlerError>(())
                })
            },
            stop(),
        )
        .await
}

/// The numbers and the ids of entries.
fn columns(batch: &[Delivery]) -> std::result::Result<(Vec<i64>, Vec<String>), HandlerError> {
    let number = |delivery: &Delivery| -> std::result::Result<i64, HandlerError> {
        let number = delivery.fields().get("n").ok_or_else(|| Error::invalid("an entry without a number"))?;
        Ok(std::str::from_utf8(number)?.parse()?)
    };
    let numbers = batch.iter().map(number).collect::<std::result::Result<_, _>>()?;
    Ok((numbers, batch.iter().map(|delivery| delivery.id().to_string()).collect()))
}

async fn stop() {
    let mut lines = stdin_lines();
    while lines.recv().await.is_some() {}
}
