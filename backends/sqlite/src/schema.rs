//! The file and its tables.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use highwater::{
    Error, ErrorKind, Result,
    clock::{Clock, fraction},
};
use sqlx::{
    ConnectOptions, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{
    Settings, Synchronous,
    error::{self, Fail},
};

/// How to connect, kept so that a task can do so again.
pub(crate) type Options = SqliteConnectOptions;

/// The scripts that lead from each version of the schema to the next.
const MIGRATIONS: [&str; 3] = [
    include_str!("../migrations/0001_init.sql"),
    include_str!("../migrations/0002_settled.sql"),
    include_str!("../migrations/0003_letters.sql"),
];
/// The version of the schema that this library writes.
const VERSION: i64 = MIGRATIONS.len() as i64;
/// SQLite's default.
const PAGE_BYTES: u64 = 4096;
/// How far the log is cut back after it has grown.
const LOG_BYTES: &str = "67108864";

/// The file at a path, if there can be one.
pub(crate) fn file(path: &Path) -> Result<PathBuf> {
    let invalid = |message: &'static str| Err(Error::invalid(message).with("path", path.display()));
    if path.as_os_str().is_empty() || path == Path::new(":memory:") {
        return invalid("a database without a file cannot be shared or resumed: give the path of a file");
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return invalid("the path holds a NUL, which no file can have: give another path");
    }
    // Absolute, so that SQLite takes it for a path and not for a URI, and a change of directory does no harm.
    let absolute = std::path::absolute(path)
        .map_err(|cause| Error::invalid("the path cannot be made absolute").with_source(cause))?;
    if absolute.is_dir() {
        return invalid("the path is a directory: give the path of a file");
    }
    if !absolute.parent().is_some_and(Path::is_dir) {
        return invalid("the directory of the database does not exist: create it first");
    }
    Ok(absolute)
}

/// How every connection is opened.
pub(crate) fn options(path: &Path, settings: &Settings) -> Options {
    let synchronous = match settings.synchronous {
        Synchronous::Full => SqliteSynchronous::Full,
        Synchronous::Normal => SqliteSynchronous::Normal,
    };
    let options = Options::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(settings.busy_timeout)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(false)
        // Rows pass between threads: a small buffer would switch between them every few rows.
        .row_buffer_size(1024)
        .pragma("journal_size_limit", LOG_BYTES)
        .disable_statement_logging();
    match settings.max_bytes {
        Some(bytes) => options.pragma("max_page_count", (bytes / PAGE_BYTES).to_string()),
        None => options,
    }
}

/// Opens a connection and brings the schema up to date.
///
/// Several processes may do so at once. The change to the log mode does not wait for others as other statements do, so this
/// repeats what is refused for that reason, as long as `patience`.
pub(crate) async fn create(options: &Options, patience: Duration) -> Result<SqliteConnection> {
    let clock = Clock::new();
    loop {
        let busy = match attempt(options).await {
            Err(Fail::Database(cause)) if error::is_busy(&cause) => cause,
            outcome => return outcome.map_err(|fail| explain(fail, options)),
        };
        if clock.elapsed() >= patience {
            return Err(error::translate(&busy));
        }
        clock.sleep(Duration::from_secs_f64(0.005 + 0.02 * fraction())).await;
    }
}

async fn attempt(options: &Options) -> Result<SqliteConnection, Fail> {
    let mut conn = options.connect().await?;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut conn).await?;
    if mode != "wal" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the file system cannot share memory between processes: use a local disk",
        )
        .into());
    }
    // Without a lock first: most of the time there is nothing to do.
    if version(&mut conn).await? == VERSION {
        return Ok(conn);
    }
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut conn).await?;
    let from = version(&mut conn).await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or_default()) {
        sqlx::raw_sql(*migration).execute(&mut conn).await?;
    }
    // An error above closes the connection, which rolls back.
    sqlx::raw_sql("COMMIT").execute(&mut conn).await?;
    Ok(conn)
}

/// The version of the schema in the file; `0` if there is none.
async fn version(conn: &mut SqliteConnection) -> Result<i64, Fail> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'highwater_schema'",
    )
    .fetch_one(&mut *conn)
    .await?;
    if tables == 0 {
        return Ok(0);
    }
    let version: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM highwater_schema").fetch_one(&mut *conn).await?;
    match version {
        Some(version @ 1..=VERSION) => Ok(version),
        Some(later) if later > VERSION => Err(Error::new(
            ErrorKind::Corrupt,
            "a newer version of this library wrote the database: upgrade before you go on",
        )
        .with("version", later)
        .with("supported", VERSION)
        .into()),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            "the database does not say which version of the schema it has: restore it from a backup",
        )
        .into()),
    }
}

fn explain(fail: Fail, options: &Options) -> Error {
    Error::from(fail).with("path", options.get_filename().display())
}
