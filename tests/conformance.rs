//! The conformance suite over every backend that needs a server or a file. The core runs it over memory and the layers.

use std::sync::{Arc, OnceLock};

use highwater::backend::{CheckpointBackend, StreamBackend};
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
highwater::stream_conformance!(redis_shared_stream, any_stream);
highwater::checkpoint_conformance!(redis_shared_checkpoint, any_checkpoint);
highwater::stream_conformance!(sqlite_stream, sqlite);
highwater::checkpoint_conformance!(sqlite_checkpoint, sqlite);
highwater::settle_conformance!(sqlite_settle, sqlite);
highwater::checkpoint_conformance!(postgres_checkpoint, postgres);
