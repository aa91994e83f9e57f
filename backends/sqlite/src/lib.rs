#![doc = include_str!("../README.md")]

mod append;
mod attempts;
mod checkpoint;
mod codec;
mod db;
mod effects;
mod error;
mod group;
mod letters;
mod outbox;
mod pending;
mod record;
mod remove;
mod schema;
mod settings;
mod settle;
mod stream;
mod transaction;
mod wake;

use std::{fmt, path::Path, sync::Arc};

use highwater::Result;

use crate::db::Db;
pub use crate::effects::Tx;
pub use crate::outbox::{Provisional, Settling};
pub use crate::settings::{Settings, Synchronous};

/// Streams, groups and checkpoints in one SQLite file.
///
/// Any number of processes of one host may open the same file. Cloning is cheap: clones share the connections. Dropping the
/// last one closes them. Calls run on the tokio runtime that opened it and end with that runtime.
#[derive(Clone)]
pub struct Sqlite {
    db: Arc<Db>,
}

impl Sqlite {
    /// Opens the file, and creates it and its tables where they are absent. Any number of processes may do so at once.
    ///
    /// # Errors
    ///
    /// [`Invalid`](highwater::ErrorKind::Invalid) if the directory does not exist or the path cannot be a file,
    /// [`Corrupt`](highwater::ErrorKind::Corrupt) if the file is no database or a newer version of this library wrote it, and
    /// [`Unavailable`](highwater::ErrorKind::Unavailable) if it cannot be read or written, or another process holds it longer
    /// than the busy timeout.
    ///
    /// # Cancel safety
    ///
    /// The file and its tables may have been created, entirely or not at all.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// # let directory = tempfile::tempdir().expect("a directory for the test");
    /// # let path = directory.path().join("streams.db");
    /// let sqlite = highwater_sqlite::Sqlite::open(&path).await?;
    /// # drop(sqlite);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Settings::default()).await
    }

    /// As [`open`](Self::open), with settings.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`Invalid`](highwater::ErrorKind::Invalid) for a setting out of its range.
    ///
    /// # Cancel safety
    ///
    /// That of [`open`](Self::open).
    pub async fn open_with(path: impl AsRef<Path>, settings: &Settings) -> Result<Self> {
        Ok(Self { db: Arc::new(Db::open(path.as_ref(), settings).await?) })
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.db.path()).finish_non_exhaustive()
    }
}
