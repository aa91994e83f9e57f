//! The conformance suite over every backend that needs a server or a file. The core runs it over memory and the layers.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use highwater::{
    EntryId, Error, ErrorKind, Result,
    backend::{CheckpointBackend, StreamBackend},
    conformance::Effects,
};
use highwater_redis::Redis;
use highwater_sqlite::{Sqlite, Tx};
use sqlx::{Connection, SqliteConnection};

use crate::support::shared_redis_url;

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
fn sqlite_file() -> String {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    folder.path().join("suite.db").to_str().expect("the path is text").to_owned()
}

async fn sqlite() -> Sqlite {
    Sqlite::open(sqlite_file()).await.expect("the file opens")
}

/// Rows of a table of the user's, beside those of the library.
struct SqliteRows;

#[async_trait]
impl Effects<Tx> for SqliteRows {
    async fn write(&self, tx: &mut Tx, table: &str, row: EntryId) -> Result<()> {
        let insert = sqlx::query("INSERT INTO effects VALUES (?, ?)").bind(table).bind(row.to_string());
        insert.execute(tx.conn().await?).await.map(drop).map_err(handler)
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        let mut conn = SqliteConnection::connect(&sqlite_file()).await.map_err(handler)?;
        let select = sqlx::query_scalar("SELECT row FROM effects WHERE name = ?").bind(table);
        let rows: Vec<String> = select.fetch_all(&mut conn).await.map_err(handler)?;
        rows.iter().map(|row| row.parse()).collect()
    }
}

fn handler(cause: sqlx::Error) -> Error {
    Error::new(ErrorKind::Handler, "the effects cannot be written").with_source(cause)
}

async fn sqlite_effects() -> (Sqlite, SqliteRows) {
    let sqlite = sqlite().await;
    let mut conn = SqliteConnection::connect(&sqlite_file()).await.expect("the file opens");
    let create = "CREATE TABLE IF NOT EXISTS effects (name TEXT NOT NULL, row TEXT NOT NULL)";
    sqlx::raw_sql(create).execute(&mut conn).await.expect("the table is created");
    (sqlite, SqliteRows)
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
highwater::transactional_conformance!(sqlite_transactional, sqlite_effects);
highwater::fused_conformance!(sqlite_fused, sqlite_effects);
