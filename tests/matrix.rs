//! Random sequences over every combination of a stream store and a checkpoint store.
//!
//! Streams: Redis by redis-rs, Redis by fred, SQLite, memory. Checkpoints: in the same store, so that both settle in one step
//! as well as in two; in another Redis; in PostgreSQL; in another SQLite file; in another memory. That makes twenty.
//! Where the checkpoint store has transactions, some of the sequences handle entries in them.
//!
//! `HIGHWATER_MODEL_SEQUENCES` says how many sequences each combination runs. One that failed runs first from then on: it is
//! kept in `proptest-regressions`.

use std::sync::{Arc, OnceLock};

use highwater::{
    EntryId, Memory, Result,
    conformance::{
        Effects,
        model::{Sequences, Stores, Summary},
    },
};
use highwater_redis::{Fred, Redis, Settings};
use tokio::{runtime::Builder, sync::Mutex};

use crate::{
    effects::{RedisTables, shared_postgres, sqlite_at},
    support::{RedisServer, shared_redis_url},
};

/// What a combination runs over servers and files, where most of the time goes into waiting.
const REAL: u32 = 104;
/// What each of the two in memory runs, in paused time.
const PAUSED: u32 = 10_000;
/// Sequences that run side by side.
const THREADS: u32 = 8;

macro_rules! combinations {
    ($($name:ident: $stream:ident with $checkpoints:ident, $run:ident;)*) => {
        $(#[test]
        fn $name() {
            $run(stringify!($stream), stringify!($checkpoints), async || $checkpoints($stream().await).await);
        })*
    };
}

combinations! {
    redis_rs_alone: redis_rs with the_same, real;
    redis_rs_with_another_redis: redis_rs with another_redis, real;
    redis_rs_with_postgres: redis_rs with postgres, real;
    redis_rs_with_sqlite: redis_rs with another_sqlite, real;
    redis_rs_with_memory: redis_rs with another_memory, real;
    fred_alone: fred with the_same, real;
    fred_with_another_redis: fred with another_redis, real;
    fred_with_postgres: fred with postgres, real;
    fred_with_sqlite: fred with another_sqlite, real;
    fred_with_memory: fred with another_memory, real;
    sqlite_alone: sqlite with the_same, real;
    sqlite_with_redis: sqlite with another_redis, real;
    sqlite_with_postgres: sqlite with postgres, real;
    sqlite_with_another_sqlite: sqlite with another_sqlite, real;
    sqlite_with_memory: sqlite with another_memory, real;
    memory_alone: memory with the_same, paused;
    memory_with_redis: memory with another_redis, real;
    memory_with_postgres: memory with postgres, real;
    memory_with_sqlite: memory with another_sqlite, real;
    memory_with_another_memory: memory with another_memory, paused;
}

async fn redis_rs() -> Stores {
    let redis = Arc::new(Redis::connect(shared_redis_url()).await.expect("the server answers"));
    Stores::one(Arc::clone(&redis)).fused_transactional(redis, tables().await)
}

async fn fred() -> Stores {
    let redis = Redis::<Fred>::open(Settings::new(shared_redis_url())).await;
    let redis = Arc::new(redis.expect("the server answers"));
    Stores::one(Arc::clone(&redis)).fused_transactional(redis, tables().await)
}

async fn tables() -> RedisTables {
    RedisTables(Redis::connect(shared_redis_url()).await.expect("the server answers"))
}

async fn sqlite() -> Stores {
    let (sqlite, rows) = sqlite_at(&fresh_file()).await;
    let sqlite = Arc::new(sqlite);
    Stores::one(Arc::clone(&sqlite)).fused_transactional(sqlite, rows)
}

async fn memory() -> Stores {
    let memory = Memory::new();
    Stores::one(memory.clone()).fused_transactional(memory, Rows::default())
}

async fn the_same(stores: Stores) -> Stores {
    stores
}

/// Effects in a Redis that is not the stream's are for exclusive subscriptions alone, so they are left out.
async fn another_redis(stores: Stores) -> Stores {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    let url = SERVER.get_or_init(RedisServer::start).url();
    stores.with_checkpoints(Redis::connect(url).await.expect("the server answers"))
}

async fn postgres(stores: Stores) -> Stores {
    let (postgres, rows) = shared_postgres().await;
    let postgres = Arc::new(postgres);
    stores.with_checkpoints(Arc::clone(&postgres)).transactional(postgres, rows)
}

async fn another_sqlite(stores: Stores) -> Stores {
    let (sqlite, rows) = sqlite_at(&fresh_file()).await;
    let sqlite = Arc::new(sqlite);
    stores.with_checkpoints(Arc::clone(&sqlite)).transactional(sqlite, rows)
}

async fn another_memory(stores: Stores) -> Stores {
    let memory = Memory::new();
    stores.with_checkpoints(memory.clone()).transactional(memory, Rows::default())
}

fn fresh_file() -> String {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let file = folder.path().join(crate::support::unique("matrix"));
    file.to_str().expect("the path is text").to_owned()
}

/// Rows in memory.
#[derive(Default)]
struct Rows(Arc<std::sync::Mutex<Vec<(String, EntryId)>>>);

#[async_trait::async_trait]
impl Effects<highwater::memory::Tx> for Rows {
    async fn write(&self, tx: &mut highwater::memory::Tx, table: &str, row: EntryId) -> Result<()> {
        let (rows, table) = (Arc::clone(&self.0), table.to_owned());
        tx.effect(move || rows.lock().expect("no test panics holding it").push((table, row)));
        Ok(())
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        Ok(self
            .0
            .lock()
            .expect("no test panics holding it")
            .iter()
            .filter(|(name, _)| name == table)
            .map(|(_, row)| *row)
            .collect())
    }
}

/// Several threads, each with connections of its own that all of its sequences use.
fn real(stream: &str, checkpoints: &str, make: impl AsyncFn() -> Stores + Sync) {
    let run = || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a test can start a runtime");
        let opened = Mutex::new(None);
        Sequences::new(REAL).divided(THREADS).run(&runtime, async || {
            let mut opened = opened.lock().await;
            if opened.is_none() {
                *opened = Some(make().await);
            }
            opened.clone().expect("it was opened")
        })
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("sequences end with a result")).collect()
    });
    report(stream, checkpoints, results);
}

/// In one thread, and in paused time.
fn paused(stream: &str, checkpoints: &str, make: impl AsyncFn() -> Stores) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a test can start a runtime");
    let sequences = Sequences::new(PAUSED).in_paused_time();
    report(stream, checkpoints, vec![sequences.run(&runtime, make)]);
}

/// The line is for `cargo xtask matrix`.
fn report(stream: &str, checkpoints: &str, results: Vec<Result<Summary, String>>) {
    let passed: u64 = results.iter().flatten().map(|summary| summary.sequences).sum();
    let steps: u64 = results.iter().flatten().map(|summary| summary.steps).sum();
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    let (failed, run) = (failures.len() as u64, passed + failures.len() as u64);
    println!("matrix: {stream} | {checkpoints} | sequences | {run} | {passed} | {failed} | {steps} steps");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
