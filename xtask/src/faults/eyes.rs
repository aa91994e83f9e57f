//! Looks at the servers from outside, on connections of its own.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use highwater::{
    EntryId, Fields, Position, Result as Answer,
    backend::{CheckpointBackend, Inspect, Read, StreamBackend},
};
use highwater_postgres::Postgres;
use highwater_redis::{Client, RedisStore, key_beside};
use sqlx::{Connection, PgConnection, Row};

use super::scene::Shared;
use crate::{Result, cli::FaultStore as Store};

/// A look at a server that is away must not wait for as long as a consumer would.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
const PAGE: usize = 1_000;

/// No constraint forbids an effect that took place twice: it would hide it.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS effects (stream text NOT NULL, number bigint NOT NULL)";
const COUNT: &str = "SELECT number, count(*) FROM effects WHERE stream = $1 GROUP BY number";

/// The stores as nobody's consumer sees them. Made again after each error.
#[derive(Debug)]
pub struct Eyes {
    shared: Arc<Shared>,
    redis: Mutex<Option<Arc<dyn RedisStore>>>,
    postgres: Mutex<Option<Postgres>>,
}

/// The hash that counts the effects in Redis, by number.
pub fn effects_key(shared: &Shared) -> String {
    key_beside(&shared.stream(), "effects")
}

/// The number that the producer gave an entry.
pub fn number(fields: &Fields) -> Option<u64> {
    std::str::from_utf8(fields.get("n")?).ok()?.parse().ok()
}

impl Eyes {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, redis: Mutex::default(), postgres: Mutex::default() }
    }

    /// Creates what is to be there before the consumers come.
    pub async fn prepare(&self) -> Result {
        let Some(url) = &self.shared.plan.postgres else { return Ok(()) };
        Postgres::connect(url).await?.ensure_schema().await?;
        if self.shared.plan.store == Store::Rows {
            let mut connection = PgConnection::connect(url).await?;
            sqlx::query(CREATE).execute(&mut connection).await?;
            connection.close().await?;
        }
        Ok(())
    }

    /// Whether an entry is settled by what is stored. Not, if nobody can tell now.
    pub async fn sees_settled(&self, id: EntryId) -> bool {
        self.sees(|position| position.settles(id)).await
    }

    /// Whether all entries up to this one are.
    pub async fn sees_settled_up_to(&self, id: EntryId) -> bool {
        self.sees(|position| position.watermark >= id).await
    }

    async fn sees(&self, holds: impl Fn(&Position) -> bool) -> bool {
        match self.checkpoint().await {
            Ok(stored) => stored.is_some_and(|checkpoint| holds(&checkpoint.position)),
            Err(error) => {
                self.shared.ledger().note(format_args!("nobody can see the checkpoint: {error}"));
                self.forget();
                false
            }
        }
    }

    /// The last id that the stream gave out.
    pub async fn last_id(&self) -> Result<EntryId> {
        let inspect = Inspect::stream(self.shared.stream());
        let state = match self.redis().await {
            Ok(redis) => redis.inspect(&inspect).await,
            Err(error) => Err(error),
        };
        Ok(state.inspect_err(|_| self.forget())?.ok_or("the stream is gone")?.last_id)
    }

    /// The numbers of all entries that the stream holds.
    pub async fn numbers_in_stream(&self) -> Result<HashSet<u64>> {
        let redis = self.redis().await?;
        let (mut numbers, mut after) = (HashSet::new(), EntryId::ZERO);
        loop {
            let page = redis.read(&Read::new(self.shared.stream(), after, PAGE)).await?;
            let Some(last) = page.last() else { return Ok(numbers) };
            after = last.id;
            numbers.extend(page.iter().filter_map(|entry| number(&entry.fields)));
        }
    }

    /// Writes down what handlers did in transactions. Of others, their handlers have done so.
    pub async fn collect_effects(&self) -> Result {
        let shared = &self.shared;
        let effects: Vec<(i64, i64)> = match (shared.plan.store, &shared.plan.postgres) {
            (Store::Rows, Some(url)) => {
                let mut connection = PgConnection::connect(url).await?;
                let rows = sqlx::query(COUNT).bind(&shared.plan.stream).fetch_all(&mut connection).await?;
                rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_>>()?
            }
            (Store::Keys, _) => keys_of(shared).await?,
            _ => return Ok(()),
        };
        let mut ledger = shared.ledger();
        for (number, times) in effects {
            ledger.handled_times(u64::try_from(number)?, u8::try_from(times).unwrap_or(u8::MAX));
        }
        Ok(())
    }

    async fn checkpoint(&self) -> Answer<Option<highwater::Checkpoint>> {
        let subscription = &self.shared.subscription;
        match self.shared.plan.store {
            Store::Redis | Store::Keys => self.redis().await?.load(subscription).await,
            Store::Postgres | Store::Rows => self.postgres().await?.load(subscription).await,
        }
    }

    async fn redis(&self) -> Answer<Arc<dyn RedisStore>> {
        let known = self.redis.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(redis) = known {
            return Ok(redis);
        }
        let settings = highwater_redis::Settings::new(&self.shared.plan.redis)
            .connect_timeout(LOOK_TIMEOUT)
            .response_timeout(LOOK_TIMEOUT);
        let redis = highwater_redis::connect_with(settings, Client::RedisRs).await?;
        *self.redis.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&redis));
        Ok(redis)
    }

    async fn postgres(&self) -> Answer<Postgres> {
        let known = self.postgres.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(postgres) = known {
            return Ok(postgres);
        }
        let settings = highwater_postgres::Settings::default()
            .response_timeout(LOOK_TIMEOUT)
            .commit_timeout(LOOK_TIMEOUT / 2);
        let url = self.shared.plan.postgres.as_deref().unwrap_or_default();
        let postgres = Postgres::connect_with(url, settings).await?;
        *self.postgres.lock().unwrap_or_else(PoisonError::into_inner) = Some(postgres.clone());
        Ok(postgres)
    }

    fn forget(&self) {
        *self.redis.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.postgres.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// How often each number was counted in the hash, which one of the nodes has.
async fn keys_of(shared: &Shared) -> Result<Vec<(i64, i64)>> {
    let hosts = shared.plan.redis.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
    let mut answer = Err("no server was asked".into());
    for host in hosts.split(',') {
        let client = redis::Client::open(format!("redis://{host}/"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let counted = redis::cmd("HGETALL").arg(effects_key(shared)).query_async(&mut connection).await;
        match counted {
            Ok(counted) => return Ok(counted),
            Err(error) => answer = Err(error.into()),
        }
    }
    answer
}
