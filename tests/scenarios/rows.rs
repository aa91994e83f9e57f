//! Effects in PostgreSQL, and processes that write them: threads with runtimes and connections of their own.

use std::{
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use highwater::{
    Builder, Consumer, Delivery, HandlerError, Ownership, Report, Result, Settings, Subscription,
    backend::StreamBackend,
};
use highwater_postgres::Postgres;
use highwater_redis::Client;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;

use super::stage::{LIMIT, client, client_of};
use crate::{
    delivery::number,
    support::{eventually, fresh_postgres_url, unique},
};

pub type TxBuilder = Builder<Arc<dyn StreamBackend>, Arc<Postgres>>;

/// A database with a table of effects, which takes all that is committed: it has no key that would hide what is done twice.
pub struct Rows {
    pub url: String,
}

impl Rows {
    pub async fn new() -> Self {
        let rows = Self { url: fresh_postgres_url().await };
        rows.store().await.ensure_schema().await.unwrap();
        rows.create().await;
        rows
    }

    pub async fn create(&self) {
        self.sql("CREATE TABLE effects (at bigserial, stream text, n bigint, who text)").await;
    }

    /// Gives the table a key of the user's own.
    pub async fn unique(&self) {
        self.sql("CREATE UNIQUE INDEX ON effects (stream, n)").await;
    }

    /// Connections of one process.
    pub async fn store(&self) -> Arc<Postgres> {
        Arc::new(Postgres::connect(&self.url).await.unwrap())
    }

    async fn sql(&self, sql: &'static str) {
        let mut conn = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    }

    /// All that is committed: of which entry, by whom, in the order of the inserts.
    pub async fn all(&self, subscription: &Subscription) -> Vec<(u64, String)> {
        let mut conn = PgConnection::connect(&self.url).await.unwrap();
        let select = sqlx::query_as("SELECT n, who FROM effects WHERE stream = $1 ORDER BY at");
        let rows: Vec<(i64, String)> =
            select.bind(subscription.stream.as_str()).fetch_all(&mut conn).await.unwrap();
        rows.into_iter().map(|(n, who)| (n.cast_unsigned(), who)).collect()
    }

    pub async fn numbers(&self, subscription: &Subscription) -> Vec<u64> {
        let mut numbers: Vec<_> = self.all(subscription).await.iter().map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Waits until there are so many, and says which.
    pub async fn until(&self, subscription: &Subscription, count: usize) -> Vec<u64> {
        eventually("the effects are there", LIMIT, async || self.numbers(subscription).await.len() >= count)
            .await;
        self.numbers(subscription).await
    }
}

/// A subscription that nobody else uses.
pub fn fresh() -> Subscription {
    Subscription::new(unique("stream"), "group").unwrap()
}

/// A consumer of Redis, with its checkpoint in the table's database.
pub async fn builder(rows: &Rows, subscription: &Subscription, ownership: Ownership) -> TxBuilder {
    let stream: Arc<dyn StreamBackend> = client(Client::RedisRs).await;
    Consumer::builder(subscription.clone(), stream, rows.store().await)
        .configure(super::stage::quick)
        .configure(|settings| settings.ownership = ownership)
}

/// Inserts a row for each entry, in one transaction each, and then does what the hook says.
pub async fn insert(
    builder: TxBuilder,
    who: &'static str,
    then: impl Fn(u64) -> Duration + Clone + Send + Sync + 'static,
    shutdown: impl Future + Send,
) -> Result<Report> {
    let consumer = builder.build()?;
    let stream = consumer.subscription().stream.clone();
    consumer
        .run_transactional(
            move |tx, delivery: Delivery| {
                let (then, stream) = (then.clone(), stream.clone());
                Box::pin(async move {
                    let n = number(&delivery);
                    sqlx::query("INSERT INTO effects (stream, n, who) VALUES ($1, $2, $3)")
                        .bind(stream.as_str())
                        .bind(n.cast_signed())
                        .bind(who)
                        .execute(&mut **tx)
                        .await?;
                    tokio::time::sleep(then(n)).await;
                    Ok::<_, HandlerError>(())
                })
            },
            shutdown,
        )
        .await
}

/// Stops a process in its tracks while it handles one entry, as a signal would: nothing of it runs until it is let go.
#[derive(Clone, Default)]
pub struct Stall(Arc<(Mutex<Stalled>, Condvar)>);

#[derive(Default)]
struct Stalled {
    at: u64,
    reached: bool,
    released: bool,
}

impl Stall {
    pub fn at(n: u64) -> Self {
        let stall = Self::default();
        stall.0.0.lock().unwrap().at = n;
        stall
    }

    /// Blocks the thread once, at its number.
    pub fn pass(&self, n: u64) {
        let (stalled, changed) = &*self.0;
        let mut stalled = stalled.lock().unwrap();
        if n == stalled.at && !stalled.reached {
            stalled.reached = true;
            drop(changed.wait_while(stalled, |stalled| !stalled.released).unwrap());
        }
    }

    pub async fn reached(&self) {
        eventually("it stands still", LIMIT, async || self.0.0.lock().unwrap().reached).await;
    }

    pub fn release(&self) {
        self.0.0.lock().unwrap().released = true;
        self.0.1.notify_all();
    }
}

/// What only a process of its own has: a runtime of one thread, and connections.
pub struct Process {
    thread: thread::JoinHandle<Vec<Result<Report>>>,
    stop: watch::Sender<bool>,
}

impl Process {
    /// Consumes these with the effects of [`insert`].
    pub fn start(
        rows: &Rows,
        subscriptions: &[Subscription],
        who: &'static str,
        configure: impl Fn(&mut Settings) + Send + Sync + 'static,
        stall: &Stall,
    ) -> Self {
        let (url, subscriptions, stall) = (rows.url.clone(), subscriptions.to_vec(), stall.clone());
        let (stop, stopped) = watch::channel(false);
        let run = async move {
            let redis = client_of(Client::RedisRs, &crate::support::shared_redis_url()).await;
            let store = Arc::new(Postgres::connect(&url).await.unwrap());
            let runs = subscriptions.into_iter().map(|subscription| {
                let stream: Arc<dyn StreamBackend> = redis.clone();
                let builder = Consumer::builder(subscription, stream, Arc::clone(&store))
                    .configure(super::stage::quick)
                    .configure(&configure);
                let (stall, mut stopped) = (stall.clone(), stopped.clone());
                let then = move |n| {
                    stall.pass(n);
                    Duration::ZERO
                };
                insert(builder, who, then, async move { drop(stopped.wait_for(|stop| *stop).await) })
            });
            join_all(runs).await
        };
        let thread = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(run)
        });
        Self { thread, stop }
    }

    pub async fn stop(self) -> Vec<Report> {
        self.stop.send_replace(true);
        eventually("the process ends", LIMIT, async || self.thread.is_finished()).await;
        self.thread.join().unwrap().into_iter().map(Result::unwrap).collect()
    }
}
