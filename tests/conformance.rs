//! The conformance suite over every backend that needs a server or a file. The core runs it over memory and the layers.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use highwater::{
    EntryId, Fields, Result, StreamName,
    backend::{CheckpointBackend, Read, StreamBackend},
    conformance::Effects,
};
use highwater_postgres::Postgres;
use highwater_redis::Redis;
use highwater_sqlite::Sqlite;

use crate::support::{shared_postgres_url, shared_redis_url};

async fn redis() -> Redis {
    Redis::connect(&shared_redis_url()).await.expect("the server answers")
}

async fn redis_resp3() -> Redis {
    Redis::connect(&format!("{}/?protocol=resp3", shared_redis_url())).await.expect("the server answers")
}

/// A table of effects is a stream.
struct Tables(Redis);

#[async_trait]
impl Effects<highwater_redis::Effects> for Tables {
    async fn write(&self, tx: &mut highwater_redis::Effects, table: &str, row: EntryId) -> Result<()> {
        let fields: Fields = [("row", row.to_string())].into_iter().collect();
        tx.append(format!("table {table}"), &fields);
        Ok(())
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        let read = Read::new(StreamName::new(format!("table {table}"))?, EntryId::ZERO, usize::MAX);
        let entries = self.0.read(&read).await?;
        let row = |fields: &Fields| EntryId::from_bytes(fields.get("row")?);
        Ok(entries.iter().map(|entry| row(&entry.fields).expect("a row is an id")).collect())
    }
}

async fn redis_effects() -> (Redis, Tables) {
    (redis().await, Tables(redis().await))
}

async fn redis_resp3_effects() -> (Redis, Tables) {
    (redis_resp3().await, Tables(redis_resp3().await))
}

async fn any_stream() -> Arc<dyn StreamBackend> {
    Arc::new(redis().await)
}

async fn any_checkpoint() -> Arc<dyn CheckpointBackend> {
    Arc::new(redis().await)
}

/// One file for all cases, as several processes would use it.
async fn sqlite() -> Sqlite {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    Sqlite::open(folder.path().join("suite.db")).await.expect("the file opens")
}

async fn postgres() -> Postgres {
    let postgres = Postgres::connect(&shared_postgres_url()).await.expect("the server answers");
    postgres.ensure_schema().await.expect("the user may create tables");
    postgres
}

highwater::stream_conformance!(redis_stream, redis);
highwater::checkpoint_conformance!(redis_checkpoint, redis);
highwater::settle_conformance!(redis_settle, redis);
highwater::stream_conformance!(redis_resp3_stream, redis_resp3);
highwater::settle_conformance!(redis_resp3_settle, redis_resp3);
highwater::transactional_conformance!(redis_transactional, redis_effects);
highwater::transactional_conformance!(redis_resp3_transactional, redis_resp3_effects);
highwater::fused_conformance!(redis_fused, redis_effects);
highwater::fused_conformance!(redis_resp3_fused, redis_resp3_effects);
highwater::stream_conformance!(redis_shared_stream, any_stream);
highwater::checkpoint_conformance!(redis_shared_checkpoint, any_checkpoint);
highwater::stream_conformance!(sqlite_stream, sqlite);
highwater::checkpoint_conformance!(sqlite_checkpoint, sqlite);
highwater::settle_conformance!(sqlite_settle, sqlite);
highwater::checkpoint_conformance!(postgres_checkpoint, postgres);
