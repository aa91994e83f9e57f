//! Entries as rows in PostgreSQL, in transactions of a batch: as one would write it with `sqlx`, and with the library.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use highwater::{Consumer, HandlerError, Subscription};
use highwater_postgres::Postgres;
use highwater_redis::Redis;
use redis::{Value, aio::MultiplexedConnection, streams::StreamReadReply};
use sqlx::PgPool;
use tokio::sync::Notify;

use super::{BATCH, STREAM, raw};
use crate::{Result, servers, support::postgres::PostgresServer};

const TABLES: &str = "CREATE TABLE bench_row (id text NOT NULL, payload bytea NOT NULL); \
                      CREATE TABLE bench_progress (name text PRIMARY KEY, id text NOT NULL)";
const INSERT: &str = "INSERT INTO bench_row SELECT * FROM unnest($1::text[], $2::bytea[])";
/// What people write: whoever comes last wins, also who should not have come.
const UNGUARDED: &str =
    "INSERT INTO bench_progress VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET id = EXCLUDED.id";

/// A database with a table for the rows.
#[derive(Debug)]
pub struct Rows {
    pool: PgPool,
    pub store: Postgres,
    _server: PostgresServer,
}

impl Rows {
    pub async fn create() -> Result<Self> {
        let server = servers::private_postgres(&["fsync=on"])?;
        let pool = PgPool::connect(&server.url()).await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let store = Postgres::from_pool(pool.clone())?;
        store.ensure_schema().await?;
        Ok(Self { pool, store, _server: server })
    }

    /// Takes out the rows of the run before.
    pub async fn clear(&self) -> Result {
        sqlx::raw_sql("TRUNCATE bench_row").execute(&self.pool).await?;
        Ok(())
    }

    /// The loop that one would write.
    pub async fn raw(&self, mut redis: MultiplexedConnection, name: &str, entries: u64) -> Result {
        let mut seen = 0;
        let mut after = "0".to_owned();
        while seen < entries {
            let reply = raw::next(&mut redis, &after).await?;
            let ids = raw::check(&reply)?;
            let last = (*ids.last().ok_or("the stream is too short")?).to_owned();
            let mut tx = self.pool.begin().await?;
            sqlx::query(INSERT).bind(&ids).bind(payloads(&reply)).execute(&mut *tx).await?;
            sqlx::query(UNGUARDED).bind(name).bind(&last).execute(&mut *tx).await?;
            tx.commit().await?;
            seen += ids.len() as u64;
            after = last;
        }
        Ok(())
    }

    /// The library's loop.
    pub async fn ours(&self, stream: Arc<Redis>, group: &str, entries: u64) -> Result {
        let (seen, done) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let all_seen = Arc::clone(&done);
        let subscription = Subscription::new(STREAM, group)?;
        let consumer = Consumer::builder(subscription, stream, self.store.clone())
            .exclusive()
            .batch_entries_max(BATCH)
            .build()?;
        let handler_done = async move { done.notified().await };
        consumer
            .run_transactional_batches(
                move |tx, batch| {
                    let (seen, all_seen) = (Arc::clone(&seen), Arc::clone(&all_seen));
                    Box::pin(async move {
                        let ids: Vec<String> =
                            batch.iter().map(|delivery| delivery.id().to_string()).collect();
                        let payloads: Vec<&[u8]> = batch
                            .iter()
                            .filter_map(|delivery| delivery.fields().get("d"))
                            .map(|d| &**d)
                            .collect();
                        sqlx::query(INSERT).bind(&ids).bind(&payloads).execute(&mut **tx).await?;
                        let batch = ids.len() as u64;
                        if seen.fetch_add(batch, Ordering::Relaxed) + batch == entries {
                            all_seen.notify_one();
                        }
                        Ok::<_, HandlerError>(())
                    })
                },
                handler_done,
            )
            .await?;
        Ok(())
    }

    /// Each entry must have its row.
    pub async fn check(&self, entries: u64) -> Result {
        let rows: i64 =
            sqlx::query_scalar("SELECT count(DISTINCT id) FROM bench_row").fetch_one(&self.pool).await?;
        if u64::try_from(rows)? == entries { Ok(()) } else { Err(format!("{rows} rows of {entries}").into()) }
    }
}

fn payloads(reply: &StreamReadReply) -> Vec<&[u8]> {
    let entries = reply.keys.iter().flat_map(|key| &key.ids);
    entries
        .filter_map(|entry| match entry.map.get("d") {
            Some(Value::BulkString(payload)) => Some(payload.as_slice()),
            _ => None,
        })
        .collect()
}
