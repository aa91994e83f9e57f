//! A batch and its progress in one transaction of PostgreSQL, as one would write it with `sqlx`.

use redis::{Value, cmd};
use sqlx::PgPool;

use super::redis_rs::{connect, lean};
use crate::{Result, env::Env, measure::Run};

/// What people write: whoever comes last wins, also who should not have come.
const UNGUARDED: &str =
    "INSERT INTO bench_progress VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET id = EXCLUDED.id";

/// `XREAD`, then a transaction that counts the batch and notes its last id.
pub async fn read_postgres(env: Env) -> Result<Run> {
    let mut redis = connect(&env).await?;
    let pool = PgPool::connect(&env.postgres.as_ref().ok_or("no postgres")?.url).await?;
    let tables = "CREATE TABLE IF NOT EXISTS bench_total (name text PRIMARY KEY, entries bigint NOT NULL); \
                  CREATE TABLE IF NOT EXISTS bench_progress (name text PRIMARY KEY, id text NOT NULL)";
    sqlx::raw_sql(tables).execute(&pool).await?;
    sqlx::query("INSERT INTO bench_total VALUES ($1, 0)").bind(&env.group).execute(&pool).await?;
    let meter = env.start()?;
    let mut after = "0".to_owned();
    let mut seen = 0;
    while seen < env.entries {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(env.batch).arg("STREAMS").arg(&env.stream).arg(&after);
        let batch = lean(read.query_async::<Value>(&mut redis).await?, &env)?;
        let (last, _) = batch.last().ok_or("the stream is too short")?;
        after = String::from_utf8(last.to_vec())?;
        let mut tx = pool.begin().await?;
        let count = sqlx::query("UPDATE bench_total SET entries = entries + $2 WHERE name = $1");
        count.bind(&env.group).bind(i64::try_from(batch.len())?).execute(&mut *tx).await?;
        sqlx::query(UNGUARDED).bind(&env.group).bind(&after).execute(&mut *tx).await?;
        tx.commit().await?;
        seen += batch.len() as u64;
    }
    meter.stop()
}
