//! The library, with its defaults: only what a scenario is about is set.

mod check;
mod growth;
mod handlers;
mod stuck;
mod transactional;

use std::{fmt, path::PathBuf, sync::Arc};

use highwater::{
    Builder, CheckpointPolicy, Consumer, Memory, Ownership, Subscription,
    backend::{CheckpointBackend, StreamBackend},
};
use highwater_postgres::Postgres;
use highwater_redis::{Client, Fred, Redis, RedisRs, RedisStore};
use highwater_sqlite::Sqlite;

use self::handlers::Count;
pub use self::stuck::run as stuck;
use crate::{Result, env::Env, measure::Run};

/// How entries come to the code of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Entry,
    Batch,
    ByHand,
    /// A transaction a batch.
    Transaction,
    /// A transaction an entry.
    TransactionEach,
}

/// Where the checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// With the stream: ack and checkpoint are one step.
    Same,
    /// In this process: what is left without a store.
    Memory,
    OtherRedis,
    Postgres,
    Sqlite,
}

/// A consumer of ours.
#[derive(Debug, Clone, Copy)]
pub struct Ours {
    pub ownership: Ownership,
    pub client: Client,
    pub way: Way,
    pub store: Store,
    pub readers: usize,
    pub checkpoint: CheckpointPolicy,
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ownership = if self.ownership == Ownership::Shared { "shared" } else { "exclusive" };
        let way = match self.way {
            Way::Entry => "entry",
            Way::Batch => "batch",
            Way::ByHand => "by hand",
            Way::Transaction => "transaction",
            Way::TransactionEach => "transaction each",
        };
        let store = match self.store {
            Store::Same => "same",
            Store::Memory => "memory",
            Store::OtherRedis => "other redis",
            Store::Postgres => "postgres",
            Store::Sqlite => "sqlite",
        };
        write!(f, "ours/{ownership}/{}/{way}/{store}", self.client)?;
        if self.readers > 1 { write!(f, "/{} readers", self.readers) } else { Ok(()) }
    }
}

impl Ours {
    /// Consumes all entries, and shows that all were settled.
    pub async fn run(self, env: Env) -> Result<Run> {
        let settings = highwater_redis::Settings::new(&env.redis.url);
        match self.client {
            Client::Fred => self.over(Arc::new(Redis::<Fred>::open(settings).await?), env).await,
            _ => self.over(Arc::new(Redis::<RedisRs>::open(settings).await?), env).await,
        }
    }

    async fn over<B: RedisStore>(self, redis: Arc<B>, env: Env) -> Result<Run> {
        let run = match (self.way, self.store) {
            (Way::Transaction | Way::TransactionEach, _) => transactional::run(self, redis, &env).await,
            (_, Store::Same) => {
                let builder = Consumer::fused(subscription(&env)?, Arc::clone(&redis));
                self.measure(builder, redis, &env).await
            }
            (_, Store::Memory) => self.apart(redis, Memory::new(), &env).await,
            (_, Store::OtherRedis) => {
                let other = Redis::connect(&env.other.as_ref().ok_or("no other redis")?.url).await?;
                self.apart(redis, Arc::new(other), &env).await
            }
            (_, Store::Postgres) => self.apart(redis, postgres(&env).await?, &env).await,
            (_, Store::Sqlite) => self.apart(redis, Sqlite::open(sqlite_path(&env)).await?, &env).await,
        }?;
        if self.ownership == Ownership::Shared {
            check::nothing_pending(&env).await?;
        }
        Ok(run)
    }

    async fn apart(
        self,
        stream: impl StreamBackend,
        store: impl CheckpointBackend + Clone,
        env: &Env,
    ) -> Result<Run> {
        let builder = Consumer::builder(subscription(env)?, stream, store.clone());
        self.measure(builder, store, env).await
    }

    async fn measure<S: StreamBackend, C: CheckpointBackend>(
        self,
        builder: Builder<S, C>,
        store: impl CheckpointBackend,
        env: &Env,
    ) -> Result<Run> {
        let consumer = self.configured(builder, env).build()?;
        let count = Count::new(env);
        let meter = env.start()?;
        match self.way {
            Way::Batch => consumer.run_batches(count.per_batch(), count.all()).await?,
            Way::ByHand => count.clone().by_hand(consumer.into_stream()).await?,
            _ => consumer.run(count.per_entry(), count.all()).await?,
        };
        let run = meter.stop()?;
        count.check()?;
        check::at_the_end(store, env).await?;
        Ok(run)
    }

    fn configured<S: StreamBackend, C: CheckpointBackend>(
        self,
        builder: Builder<S, C>,
        env: &Env,
    ) -> Builder<S, C> {
        let builder = match self.ownership {
            Ownership::Shared => builder.shared(),
            Ownership::Exclusive => builder.exclusive(),
        };
        builder.batch_entries_max(env.batch).configure(|settings| {
            (settings.read_entries_max, settings.readers) = (env.batch, self.readers);
            settings.checkpoint = self.checkpoint;
            if self.readers > 1 {
                // Room for what is read, what is read ahead, and what is handled.
                settings.in_flight_entries_max = 4 * self.readers * env.batch;
            }
        })
    }
}

pub(super) fn subscription(env: &Env) -> Result<Subscription> {
    Ok(Subscription::new(&env.stream, &env.group)?)
}

async fn postgres(env: &Env) -> Result<Postgres> {
    let store = Postgres::connect(&env.postgres.as_ref().ok_or("no postgres")?.url).await?;
    store.ensure_schema().await?;
    Ok(store)
}

fn sqlite_path(env: &Env) -> PathBuf {
    env.dir.join(format!("{}.db", env.group))
}
