//! Backends with an operator beside them, who sees and spoils what is stored.

use std::{fmt::Display, future::pending, sync::Arc, time::Duration};

use highwater::{
    Builder, Consumer, ConsumerName, Delivery, EntryId, Error, ErrorKind, Fields, HandlerError, Memory,
    Outcome, Position, Retry, StreamName, Subscription, backend::*,
};
use highwater_redis::Redis;
use highwater_sqlite::{Settings, Sqlite};
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::RedisServer;

/// Much longer than anything here takes.
pub const SOON: Duration = Duration::from_secs(20);

pub const CHECKPOINT: &str = "highwater:{s}:checkpoint:1:s:g";
pub const GROUPS: &str = "highwater:{s}:groups:1:s";
pub const HEARTBEATS: &str = "highwater:{s}:heartbeats:1:s:g";

/// A backend of its own, with the means to look at what it keeps.
pub struct Place {
    pub backend: Arc<dyn AtomicSettle>,
    keeper: Keeper,
}

enum Keeper {
    Memory,
    Sqlite(TempDir),
    Redis(RedisServer),
}

/// How a consumer uses a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Fused,
    TwoStep,
    Exclusive,
}

pub const WAYS: [Way; 3] = [Way::Fused, Way::TwoStep, Way::Exclusive];

impl Place {
    pub fn memory() -> Self {
        Self { backend: Arc::new(Memory::new()), keeper: Keeper::Memory }
    }

    pub async fn sqlite() -> Self {
        Self::sqlite_with(&Settings::default()).await
    }

    pub async fn sqlite_with(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open_with(folder.path().join("test.db"), settings).await.unwrap();
        Self { backend: Arc::new(sqlite), keeper: Keeper::Sqlite(folder) }
    }

    pub async fn redis() -> Self {
        Self::redis_with(&[]).await
    }

    pub async fn redis_with(options: &[&str]) -> Self {
        let server = RedisServer::start_with(options);
        let redis = Redis::connect(server.url()).await.unwrap();
        Self { backend: Arc::new(redis), keeper: Keeper::Redis(server) }
    }

    pub async fn all() -> [Self; 3] {
        [Self::memory(), Self::sqlite().await, Self::redis().await]
    }

    pub fn name(&self) -> &'static str {
        StreamBackend::name(&self.backend)
    }

    pub fn stream(&self) -> Arc<dyn StreamBackend> {
        self.backend.clone()
    }

    pub fn store(&self) -> Arc<dyn CheckpointBackend> {
        self.backend.clone()
    }

    pub fn server(&self) -> &RedisServer {
        let Keeper::Redis(server) = &self.keeper else { panic!("not Redis") };
        server
    }

    /// A command of the operator, who is never refused.
    pub fn redis_cli(&self, command: &[&str]) -> String {
        let reply = self.server().cli(command).unwrap();
        assert!(!reply.is_error(), "{command:?}: {reply}");
        reply.text()
    }

    /// The file, in the hands of the operator.
    pub async fn sql(&self) -> SqliteConnection {
        let Keeper::Sqlite(folder) = &self.keeper else { panic!("not SQLite") };
        SqliteConnectOptions::new().filename(folder.path().join("test.db")).connect().await.unwrap()
    }

    /// All that is kept, down to the byte where an operator can see it: streams, groups, pending entries, checkpoints.
    pub async fn picture(&self) -> Vec<String> {
        match &self.keeper {
            Keeper::Memory => {
                let entries = self.backend.read(&Read::new(stream(), EntryId::ZERO, 10_000)).await;
                vec![self.state().await, format!("{entries:?}")]
            }
            Keeper::Redis(server) => {
                let mut keys: Vec<_> =
                    server.cli(&["KEYS", "*"]).unwrap().list().iter().map(|key| key.text()).collect();
                keys.sort();
                keys.iter().map(|key| format!("{key}: {}", server.cli(&["DUMP", key]).unwrap())).collect()
            }
            Keeper::Sqlite(_) => picture_of_file(&mut self.sql().await).await,
        }
    }

    /// What the backend says about stream, group and checkpoints.
    pub async fn state(&self) -> String {
        let state = self.backend.inspect(&Inspect::subscription(&subscription())).await;
        format!("{state:?} {:?}", self.backend.list(&stream()).await)
    }

    /// Entries `1-0` to `count-0`, a group, and a checkpoint that has the first of them.
    pub async fn fill(&self, count: u64) {
        let entries = (1..=count).map(|ms| NewEntry::new(fields("value")).with_id(id(ms))).collect();
        for appended in self.backend.append(&Append::new(stream(), entries)).await.unwrap() {
            appended.unwrap();
        }
        let ensure = EnsureGroup::new(subscription(), &Position::default());
        assert!(self.backend.ensure_group(&ensure).await.unwrap());
        let read = ReadGroup::new(subscription(), consumer("first"), 1);
        assert_eq!(self.backend.read_group(&read).await.unwrap().len(), 1);
        let settle = Settle::new(subscription(), vec![id(1)], highwater::Epoch(0), consumer("first"));
        self.backend.settle(&settle.count(true)).await.unwrap();
        // Not every server counts.
        let counted = Position::at(id(1)).with_ordinal(Some(1));
        let advance = Advance::new(subscription(), highwater::Epoch(0), counted, consumer("first"));
        self.backend.advance(&advance).await.unwrap();
        let leave = Leave::new(subscription(), consumer("first"), Token(1));
        self.backend.leave(&leave).await.unwrap();
    }

    /// Why a consumer does not run here. None of them may handle an entry first.
    pub async fn refuses(&self, way: Way) -> Error {
        let fused = || Consumer::fused(subscription(), self.backend.clone());
        match way {
            Way::Fused => refused(fused()).await,
            Way::TwoStep => refused(Consumer::builder(subscription(), self.stream(), self.store())).await,
            Way::Exclusive => refused(fused().exclusive()).await,
        }
    }
}

async fn picture_of_file(sql: &mut SqliteConnection) -> Vec<String> {
    let tables =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'highwater%' ORDER BY name";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut *sql).await.unwrap();
    let mut picture = Vec::new();
    for table in tables {
        let columns = "SELECT group_concat('quote(' || name || ')', '||'' ''||') FROM pragma_table_info(?)";
        let columns: String = sqlx::query_scalar(columns).bind(&table).fetch_one(&mut *sql).await.unwrap();
        // As bytes: what was spoiled may be no text.
        let rows = format!("SELECT CAST({columns} AS BLOB) FROM {table} ORDER BY 1");
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut *sql).await.unwrap();
        picture.extend(rows.iter().map(|row| format!("{table}: {}", row.escape_ascii())));
    }
    picture
}

/// Why a consumer does not run. One that handles an entry gets another error.
pub async fn refused<S: StreamBackend, C: CheckpointBackend>(builder: Builder<S, C>) -> Error {
    let handler = |delivery: Delivery| async move {
        Err::<(), _>(HandlerError::reject(format!("{} was delivered", delivery.id())))
    };
    let run = builder.build().expect("valid settings").run(handler, pending::<()>());
    timeout(SOON, run).await.expect("it does not wait for ever").expect_err("it is refused")
}

/// What an error is and says: the words tell what to do. Nothing of what was asked took place.
#[track_caller]
pub fn assert_told(case: impl Display, error: &Error, kind: ErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{case}: {error:?}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{case}: no {word:?} in: {text}");
    }
    assert!(!text.contains('\n'), "{case}: {text}");
    let retry = if kind == ErrorKind::Unavailable { Retry::Later } else { Retry::Never };
    assert_eq!((error.retry(), error.outcome()), (retry, Outcome::NotApplied), "{case}: {error:?}");
}

pub fn stream() -> StreamName {
    StreamName::new("s").unwrap()
}

pub fn subscription() -> Subscription {
    Subscription::new("s", "g").unwrap()
}

pub fn consumer(name: &str) -> ConsumerName {
    ConsumerName::new(name).unwrap()
}

pub fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

pub fn fields(value: impl Into<Vec<u8>>) -> Fields {
    Fields::from_iter([("f", value.into())])
}
