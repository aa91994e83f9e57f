//! Tables of the user's own beside a checkpoint, in each store that commits both together.

use std::sync::OnceLock;

use async_trait::async_trait;
use highwater::{
    EntryId, Error, ErrorKind, Fields, Result, StreamName,
    backend::{Read, StreamBackend},
    conformance::Effects,
};
use highwater_postgres::Postgres;
use highwater_redis::Redis;
use highwater_sqlite::Sqlite;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::sync::Mutex;

use crate::support::shared_postgres_url;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS effects (name TEXT NOT NULL, entry TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS effects_by_name ON effects (name)";

/// A table is a stream.
pub struct RedisTables(pub Redis);

#[async_trait]
impl Effects<highwater_redis::Effects> for RedisTables {
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

/// Rows in a file, read by a connection of their own.
pub struct SqliteRows(Mutex<SqliteConnection>);

/// One file for all cases, as several processes would use it.
pub fn sqlite_file() -> String {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    folder.path().join("suite.db").to_str().expect("the path is text").to_owned()
}

pub async fn sqlite() -> (Sqlite, SqliteRows) {
    sqlite_at(&sqlite_file()).await
}

/// The store and its rows, in this file.
pub async fn sqlite_at(path: &str) -> (Sqlite, SqliteRows) {
    let sqlite = Sqlite::open(path).await.expect("the file opens");
    let mut conn = SqliteConnection::connect(path).await.expect("the file opens");
    sqlx::raw_sql(CREATE).execute(&mut conn).await.expect("the table is created");
    (sqlite, SqliteRows(Mutex::new(conn)))
}

#[async_trait]
impl Effects<highwater_sqlite::Tx> for SqliteRows {
    async fn write(&self, tx: &mut highwater_sqlite::Tx, table: &str, row: EntryId) -> Result<()> {
        let insert = sqlx::query("INSERT INTO effects VALUES (?, ?)").bind(table).bind(row.to_string());
        insert.execute(tx.conn().await?).await.map(drop).map_err(handler)
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        let mut conn = self.0.lock().await;
        let select = sqlx::query_scalar("SELECT entry FROM effects WHERE name = ?").bind(table);
        let rows: Vec<String> = select.fetch_all(&mut *conn).await.map_err(handler)?;
        rows.iter().map(|row| row.parse()).collect()
    }
}

/// Rows in a database, read by a connection of their own.
pub struct PostgresRows(Mutex<PgConnection>);

/// The store and its rows, in the database of this URL.
pub async fn postgres(url: String) -> (Postgres, PostgresRows) {
    let postgres = Postgres::connect(&url).await.expect("the server answers");
    postgres.ensure_schema().await.expect("the user may create tables");
    let mut conn = PgConnection::connect(&url).await.expect("the server answers");
    // Two that create it at once can fail, although both say `IF NOT EXISTS`.
    let alone = format!("BEGIN; SELECT pg_advisory_xact_lock(1701); {CREATE}; COMMIT");
    sqlx::raw_sql(sqlx::AssertSqlSafe(alone)).execute(&mut conn).await.expect("the table is created");
    (postgres, PostgresRows(Mutex::new(conn)))
}

pub async fn shared_postgres() -> (Postgres, PostgresRows) {
    postgres(shared_postgres_url()).await
}

#[async_trait]
impl Effects<highwater_postgres::Tx> for PostgresRows {
    async fn write(&self, tx: &mut highwater_postgres::Tx, table: &str, row: EntryId) -> Result<()> {
        let insert = sqlx::query("INSERT INTO effects VALUES ($1, $2)").bind(table).bind(row.to_string());
        insert.execute(&mut **tx).await.map(drop).map_err(handler)
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        let mut conn = self.0.lock().await;
        let select = sqlx::query_scalar("SELECT entry FROM effects WHERE name = $1").bind(table);
        let rows: Vec<String> = select.fetch_all(&mut *conn).await.map_err(handler)?;
        rows.iter().map(|row| row.parse()).collect()
    }
}

fn handler(cause: sqlx::Error) -> Error {
    Error::new(ErrorKind::Handler, "the effects cannot be written").with_source(cause)
}
