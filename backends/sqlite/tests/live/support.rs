//! Files that go away, and short ways to say what the tests say often.

use std::{future::Future, time::Duration};

use highwater::{
    ConsumerName, EntryId, Error, ErrorKind, Fields, Position, Result, Subscription, backend::*, clock::Clock,
};
use highwater_sqlite::{Settings, Sqlite, Synchronous};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

pub(crate) struct Store {
    directory: TempDir,
    pub(crate) sqlite: Sqlite,
    pub(crate) orders: Subscription,
}

impl Store {
    pub(crate) async fn new() -> Self {
        Self::with(&settings()).await
    }

    pub(crate) async fn with(settings: &Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open_with(directory.path().join("test.db"), settings).await.unwrap();
        Self { directory, sqlite, orders: Subscription::new("orders", "billing").unwrap() }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("test.db")
    }

    /// As another process would: nothing is shared but the file.
    pub(crate) async fn another(&self) -> Sqlite {
        Sqlite::open_with(self.path(), &settings()).await.unwrap()
    }

    /// As an operator with the shell of SQLite.
    pub(crate) async fn raw(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).connect().await.unwrap()
    }

    pub(crate) async fn append(&self, ids: impl IntoIterator<Item = u64>) {
        let entries = ids.into_iter().map(|ms| NewEntry::new(fields(ms)).with_id(id(ms))).collect();
        let request = Append::new(self.orders.stream.clone(), entries);
        for appended in self.sqlite.append(&request).await.unwrap() {
            appended.unwrap();
        }
    }

    pub(crate) async fn ensure_group(&self, at: u64) -> bool {
        let request = EnsureGroup::new(self.orders.clone(), &Position::at(id(at)));
        self.sqlite.ensure_group(&request).await.unwrap()
    }

    pub(crate) async fn read_group(&self, consumer: &str, limit: usize) -> Vec<u64> {
        let request = ReadGroup::new(self.orders.clone(), name(consumer), limit);
        self.sqlite.read_group(&request).await.unwrap().iter().map(|delivery| delivery.id().ms).collect()
    }

    pub(crate) async fn read_pending(&self, consumer: &str) -> Vec<(u64, u64, bool)> {
        let request = ReadPending::new(self.orders.clone(), name(consumer), EntryId::ZERO, 1000);
        summary(self.sqlite.read_pending(&request).await.unwrap())
    }

    pub(crate) async fn claim(&self, consumer: &str, min_idle: Duration) -> Vec<(u64, u64, bool)> {
        let request = Claim::new(self.orders.clone(), name(consumer), 1000, min_idle);
        summary(self.sqlite.claim(&request).await.unwrap().entries)
    }

    pub(crate) async fn beat(&self, consumer: &str, token: u64, ttl: Duration) -> Result<Beat> {
        let request = Heartbeat::new(self.orders.clone(), name(consumer), Token(token), ttl);
        self.sqlite.heartbeat(&request).await
    }

    pub(crate) async fn ack(&self, ids: impl IntoIterator<Item = u64>) -> (u64, Position) {
        let request = Ack::new(self.orders.clone(), ids.into_iter().map(id).collect()).count(true);
        let acked = self.sqlite.ack(&request).await.unwrap();
        (acked.acked, acked.position.unwrap())
    }

    pub(crate) async fn state(&self) -> StreamState {
        let request = Inspect::subscription(&self.orders);
        self.sqlite.inspect(&request).await.unwrap().unwrap()
    }

    pub(crate) async fn read(&self, after: EntryId) -> Vec<EntryId> {
        let request = Read::new(self.orders.stream.clone(), after, 10_000);
        self.sqlite.read(&request).await.unwrap().iter().map(|entry| entry.id).collect()
    }
}

/// Most tests need no protection from a loss of power.
pub(crate) fn settings() -> Settings {
    Settings::default().synchronous(Synchronous::Normal)
}

pub(crate) fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

pub(crate) fn name(name: &str) -> ConsumerName {
    ConsumerName::new(name).unwrap()
}

pub(crate) fn fields(value: u64) -> Fields {
    [("value", value.to_string())].into_iter().collect()
}

/// Id, deliveries, and whether the entry is still there.
pub(crate) fn summary(entries: Vec<PendingEntry>) -> Vec<(u64, u64, bool)> {
    entries.into_iter().map(|entry| (entry.id.ms, entry.deliveries, entry.fields.is_some())).collect()
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Waits until it is so; fails after ten seconds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let clock = Clock::new();
    while !condition().await {
        assert!(clock.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        clock.sleep(Duration::from_millis(2)).await;
    }
}

/// Fails instead of waiting for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it ends soon")
}

impl Store {
    /// Lets go of the database, and keeps the file.
    pub(crate) fn into_directory(self) -> TempDir {
        self.directory
    }
}
