//! The tasks of a scene: one producer, and consumers that are started again when they end with an error.

use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use highwater::{
    Builder, Consumer, Delivery, Error, ErrorKind, Fields, HandlerError, Observation, OnGap, OnReset,
    Outcome, Report, Subscription,
    backend::{CheckpointBackend, StreamBackend},
    producer::{Producer, ProducerSettings, Retention},
};
use highwater_postgres::Postgres;
use highwater_redis::RedisStore;
use sqlx::PgConnection;
use tokio::{sync::watch, time};

use super::{
    eyes::{effects_key, number},
    scene::Shared,
};
use crate::cli::{FaultStore as Store, Ownership};

/// How often the producer appends in a second, about.
const TICKS: u64 = 25;
/// As whoever runs processes would: a consumer that ended is started again after this.
const RESTART_WAIT: Duration = Duration::from_millis(250);
/// Who writes in a transaction must not wait for ever: a connection may lead nowhere without a word.
const STATEMENT_LIMIT: Duration = Duration::from_secs(1);
/// The most entries of one transaction.
const BATCH_MAX: usize = 200;

/// Appends numbered entries until it is told to end. Each number is sent once, whatever is said of it.
pub async fn produce(shared: Arc<Shared>) {
    // As many in each tick on average.
    let mean = usize::try_from(shared.plan.rate / TICKS).unwrap_or(1).max(1);
    let going = shared.produce.subscribe();
    let Some(producer) = producer(&shared).await else { return };
    while *going.borrow() {
        append(&shared, &producer, fastrand::usize(1..2 * mean)).await;
        time::sleep(Duration::from_millis(1_000 / TICKS)).await;
    }
    if let Err(error) = producer.close().await {
        shared.ledger().note(format_args!("the producer could not close: {error}"));
    }
}

async fn producer(shared: &Shared) -> Option<Producer<Arc<dyn RedisStore>>> {
    let going = shared.produce.subscribe();
    let mut settings = ProducerSettings::default();
    if let Some(age) = shared.plan.retention {
        settings.retention = Retention::Age(age);
    }
    while *going.borrow() {
        let opened = async {
            let redis = redis(shared).await?;
            let mut builder =
                Producer::builder(shared.stream(), Arc::clone(&redis)).settings(settings.clone());
            builder = match shared.plan.store {
                Store::Redis | Store::Keys => builder.protect(Arc::new(redis)),
                Store::Postgres | Store::Rows => builder.protect(Arc::new(postgres(shared).await?)),
            };
            builder.build()
        };
        match opened.await {
            Ok(producer) => return Some(producer),
            Err(error) => shared.ledger().note(format_args!("the producer cannot begin: {error}")),
        }
        time::sleep(RESTART_WAIT).await;
    }
    None
}

async fn append(shared: &Shared, producer: &Producer<Arc<dyn RedisStore>>, count: usize) {
    let first = shared.ledger().begin(count);
    let numbers = first..first + count as u64;
    let entries = numbers.clone().map(|n| Fields::from_iter([("n", n.to_string())])).collect();
    let results = producer.append_many(entries).await;
    let mut ledger = shared.ledger();
    match results {
        Ok(results) => {
            let mut failure = None;
            for (number, result) in numbers.zip(results) {
                match result {
                    Ok(id) => ledger.confirmed(number, id),
                    Err(error) => {
                        if error.outcome() == Outcome::NotApplied {
                            ledger.refused(number);
                        }
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                ledger.note(format_args!("append: {error} ({:?})", error.outcome()));
            }
        }
        Err(error) => {
            numbers.for_each(|number| ledger.refused(number));
            ledger.note(format_args!("append: {error}"));
        }
    }
}

/// Consumes until it is told to end.
pub async fn consume(shared: Arc<Shared>, nth: usize) {
    let going = shared.consume.subscribe();
    while *going.borrow() {
        match once(&shared, nth).await {
            Ok(report) => shared.ledger().note(format_args!("consumer {nth} stopped: {report:?}")),
            Err(error) => {
                shared.ledger().ended(nth, &error);
                time::sleep(RESTART_WAIT).await;
            }
        }
    }
}

async fn once(shared: &Arc<Shared>, nth: usize) -> highwater::Result<Report> {
    let stream = redis(shared).await?;
    let subscription = shared.subscription.clone();
    let stop = stopped(shared.consume.subscribe());
    match shared.plan.store {
        Store::Redis => {
            let consumer = set(Consumer::fused(subscription, stream), shared, nth).build()?;
            consumer.run(handler(shared), stop).await
        }
        Store::Postgres => {
            let checkpoints = postgres(shared).await?;
            let consumer = set(Consumer::builder(subscription, stream, checkpoints), shared, nth).build()?;
            consumer.run(handler(shared), stop).await
        }
        Store::Rows => {
            let checkpoints = postgres(shared).await?;
            let consumer = set(Consumer::builder(subscription, stream, checkpoints), shared, nth).build()?;
            rows(shared, nth, consumer).await
        }
        Store::Keys => keys(shared, nth, stream).await,
    }
}

/// A transaction for each batch, in the server that has the checkpoint.
async fn keys(shared: &Arc<Shared>, nth: usize, redis: Arc<dyn RedisStore>) -> highwater::Result<Report> {
    let key = effects_key(shared);
    let consumer = set(Consumer::fused(shared.subscription.clone(), redis), shared, nth).build()?;
    consumer
        .run_transactional_batches(
            move |effects, batch| {
                let counted = batch.iter().try_for_each(|delivery| {
                    effects.hash_incr_by(&key, numbered(delivery)?.to_string(), 1);
                    Ok::<_, HandlerError>(())
                });
                Box::pin(async move { counted })
            },
            stopped(shared.consume.subscribe()),
        )
        .await
}

async fn stopped(mut going: watch::Receiver<bool>) {
    drop(going.wait_for(|going| !going).await);
}

/// Some consumers have a transaction for each entry, the others for a batch.
async fn rows(
    shared: &Arc<Shared>,
    nth: usize,
    consumer: Consumer<Arc<dyn RedisStore>, Postgres>,
) -> highwater::Result<Report> {
    let stop = stopped(shared.consume.subscribe());
    let shared = Arc::clone(shared);
    if shared.plan.singly && nth.is_multiple_of(2) {
        return consumer
            .run_transactional(
                move |tx, delivery| Box::pin(insert(Arc::clone(&shared), nth, tx, vec![delivery])),
                stop,
            )
            .await;
    }
    consumer
        .run_transactional_batches(
            move |tx, batch| Box::pin(insert(Arc::clone(&shared), nth, tx, batch)),
            stop,
        )
        .await
}

/// Writes a row for each entry.
async fn insert(
    shared: Arc<Shared>,
    nth: usize,
    tx: &mut PgConnection,
    batch: Vec<Delivery>,
) -> Result<(), HandlerError> {
    const INSERT: &str = "INSERT INTO effects SELECT $1, n FROM unnest($2::bigint[]) AS e (n)";
    let insert = sqlx::query(INSERT).bind(&shared.plan.stream).bind(columns(&batch)?).execute(tx);
    let inserted = time::timeout(STATEMENT_LIMIT, insert).await;
    if !matches!(inserted, Ok(Ok(_))) {
        shared.ledger().note(format_args!("consumer {nth} cannot write: {inserted:?}"));
    }
    inserted??;
    Ok(())
}

fn set<S: StreamBackend, C: CheckpointBackend>(
    builder: Builder<S, C>,
    shared: &Arc<Shared>,
    nth: usize,
) -> Builder<S, C> {
    let observing = Arc::clone(shared);
    let follows = shared.plan.follows;
    let builder = builder
        .batch_entries_max(BATCH_MAX)
        .configure(|settings| {
            // What a handler cannot write while the database is away must not be given up for that.
            settings.attempts_max = 1_000;
            if follows {
                settings.on_gap = OnGap::Skip;
                settings.on_reset = OnReset::FromBeginning;
            }
        })
        .observer(move |_: &Subscription, seen: &Observation<'_>| observing.ledger().observe(nth, seen));
    match shared.plan.ownership {
        Ownership::Shared => builder.shared(),
        Ownership::Exclusive => builder.exclusive(),
    }
}

fn handler(
    shared: &Arc<Shared>,
) -> impl Fn(Delivery) -> Ready<Result<(), HandlerError>> + Send + Sync + 'static {
    let shared = Arc::clone(shared);
    move |delivery| ready(numbered(&delivery).map(|number| shared.ledger().handled(number)))
}

fn numbered(delivery: &Delivery) -> Result<u64, HandlerError> {
    Ok(number(delivery.fields())
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "an entry without a number"))?)
}

/// The numbers of entries, as a column.
fn columns(batch: &[Delivery]) -> Result<Vec<i64>, HandlerError> {
    batch.iter().map(|delivery| Ok(i64::try_from(numbered(delivery)?)?)).collect()
}

async fn redis(shared: &Shared) -> highwater::Result<Arc<dyn RedisStore>> {
    highwater_redis::connect(&*shared.plan.redis, shared.plan.client).await
}

async fn postgres(shared: &Shared) -> highwater::Result<Postgres> {
    Postgres::connect(shared.plan.postgres.as_deref().unwrap_or_default()).await
}
