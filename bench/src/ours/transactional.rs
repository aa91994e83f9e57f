//! Handlers whose effect is in the transaction of the checkpoint: a row that counts, so that a second effect would show.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use highwater::{
    Builder, Consumer, HandlerError,
    backend::{StreamBackend, TransactionalCheckpoint},
};
use highwater_postgres::Postgres;
use highwater_redis::RedisStore;
use highwater_sqlite::Sqlite;
use sqlx::{ConnectOptions, Connection, PgPool, sqlite::SqliteConnectOptions};

use super::{Ours, Store, Way, check, handlers::Count, postgres, sqlite_path, subscription};
use crate::{Result, env::Env, measure::Run, raw};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS bench_total (name text PRIMARY KEY, entries bigint NOT NULL)";
const ROW: &str = "INSERT INTO bench_total VALUES ($1, 0)";
const ADD: &str = "UPDATE bench_total SET entries = entries + $2 WHERE name = $1";
const TOTAL: &str = "SELECT entries FROM bench_total WHERE name = $1";

pub async fn run<B: RedisStore>(ours: Ours, redis: Arc<B>, env: &Env) -> Result<Run> {
    match ours.store {
        Store::Postgres => in_postgres(ours, redis, env).await,
        Store::Sqlite => in_sqlite(ours, redis, env).await,
        _ => in_redis(ours, redis, env).await,
    }
}

/// A store whose transactions can count.
trait Counts: TransactionalCheckpoint {
    fn add(tx: &mut Self::Tx, group: String, more: i64) -> BoxFuture<'_, Result<(), HandlerError>>;
}

impl Counts for Postgres {
    fn add(tx: &mut Self::Tx, group: String, more: i64) -> BoxFuture<'_, Result<(), HandlerError>> {
        Box::pin(
            async move { Ok(sqlx::query(ADD).bind(group).bind(more).execute(&mut **tx).await.map(drop)?) },
        )
    }
}

impl Counts for Sqlite {
    fn add(tx: &mut Self::Tx, group: String, more: i64) -> BoxFuture<'_, Result<(), HandlerError>> {
        Box::pin(async move {
            Ok(sqlx::query(ADD).bind(group).bind(more).execute(tx.conn().await?).await.map(drop)?)
        })
    }
}

/// As `Consumer::fused` has it.
impl<B: RedisStore> Counts for Arc<Arc<B>> {
    fn add(tx: &mut Self::Tx, group: String, more: i64) -> BoxFuture<'_, Result<(), HandlerError>> {
        tx.hash_incr_by("bench_total", group, more);
        Box::pin(async { Ok(()) })
    }
}

async fn in_postgres<B: RedisStore>(ours: Ours, redis: Arc<B>, env: &Env) -> Result<Run> {
    let store = postgres(env).await?;
    let pool = PgPool::connect(&env.postgres.as_ref().ok_or("no postgres")?.url).await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    sqlx::query(ROW).bind(&env.group).execute(&pool).await?;
    let run = consume(ours, Consumer::builder(subscription(env)?, redis, store.clone()), env).await?;
    check::at_the_end(store, env).await?;
    total(sqlx::query_scalar(TOTAL).bind(&env.group).fetch_one(&pool).await?, env)?;
    Ok(run)
}

async fn in_sqlite<B: RedisStore>(ours: Ours, redis: Arc<B>, env: &Env) -> Result<Run> {
    let path = sqlite_path(env);
    let store = Sqlite::open(&path).await?;
    let mut mine = SqliteConnectOptions::new().filename(&path).connect().await?;
    sqlx::raw_sql(TABLE).execute(&mut mine).await?;
    sqlx::query(ROW).bind(&env.group).execute(&mut mine).await?;
    let run = consume(ours, Consumer::builder(subscription(env)?, redis, store.clone()), env).await?;
    check::at_the_end(store, env).await?;
    total(sqlx::query_scalar(TOTAL).bind(&env.group).fetch_one(&mut mine).await?, env)?;
    mine.close().await?;
    Ok(run)
}

async fn in_redis<B: RedisStore>(ours: Ours, redis: Arc<B>, env: &Env) -> Result<Run> {
    let run = consume(ours, Consumer::fused(subscription(env)?, Arc::clone(&redis)), env).await?;
    check::at_the_end(redis, env).await?;
    total(raw::hash_field(env, "bench_total", &env.group).await?, env)?;
    Ok(run)
}

async fn consume<S: StreamBackend, C: Counts>(ours: Ours, builder: Builder<S, C>, env: &Env) -> Result<Run> {
    let builder = ours.configured(builder, env);
    let each = ours.way == Way::TransactionEach;
    let consumer = builder.batch_entries_max(if each { 1 } else { env.batch }).build()?;
    let count = Count::new(env);
    let (taken, group) = (count.clone(), env.group.clone());
    let meter = env.start()?;
    consumer
        .run_transactional_batches(
            move |tx, batch| {
                let (taken, group) = (taken.clone(), group.clone());
                Box::pin(async move {
                    C::add(tx, group, i64::try_from(batch.len())?).await?;
                    Ok::<_, HandlerError>(taken.take(&batch)?)
                })
            },
            count.all(),
        )
        .await?;
    let run = meter.stop()?;
    count.check()?;
    Ok(run)
}

fn total(total: i64, env: &Env) -> Result {
    if u64::try_from(total)? == env.entries {
        Ok(())
    } else {
        Err(format!("{total} effects of {}", env.entries).into())
    }
}
