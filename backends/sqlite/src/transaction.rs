//! Requests, and the transactions that they share.

use async_trait::async_trait;
use highwater::{Error, ErrorKind, Outcome, Result, StreamName};
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};
use tokio::sync::oneshot;

use crate::{
    error::{self, Fail},
    schema::Options,
};

/// What an operation works on.
#[derive(Debug)]
pub(crate) struct Tx<'c> {
    pub(crate) conn: &'c mut SqliteConnection,
    /// The store's clock: milliseconds of Unix time, read once the transaction had the database for itself.
    pub(crate) now: u64,
    touched: Vec<StreamName>,
}

impl<'c> Tx<'c> {
    pub(crate) fn new(conn: &'c mut SqliteConnection, now: u64) -> Self {
        Self { conn, now, touched: Vec::new() }
    }

    /// Wakes whoever is blocked on the stream, once the transaction has been committed.
    pub(crate) fn touch(&mut self, stream: &StreamName) {
        self.touched.push(stream.clone());
    }
}

/// Something to do in a transaction. It may be run again if the transaction failed, so it keeps no state.
#[async_trait]
pub(crate) trait Operation: Send + Sync + 'static {
    type Out: Send + 'static;
    /// Goes before the others that wait: a sign of life counts from when it came, and not from when the file was free.
    const FIRST: bool = false;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Fail>;
}

/// An operation whose answer somebody waits for.
pub(crate) struct Request<O: Operation> {
    operation: O,
    outcome: Option<Result<O::Out>>,
    reply: oneshot::Sender<Result<O::Out>>,
}

impl<O: Operation> Request<O> {
    pub(crate) fn new(operation: O, reply: oneshot::Sender<Result<O::Out>>) -> Self {
        Self { operation, outcome: None, reply }
    }
}

/// A [`Request`] of any type.
#[async_trait]
pub(crate) trait Job: Send {
    /// Runs it and keeps the outcome. Returns whether it was granted.
    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, sqlx::Error>;

    /// Nobody waits for it any more.
    fn is_abandoned(&self) -> bool;

    /// Goes before the others.
    fn is_first(&self) -> bool;

    /// Sends the outcome: the one that was kept, or this.
    fn finish(self: Box<Self>, failure: Option<Error>);
}

#[async_trait]
impl<O: Operation> Job for Request<O> {
    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, sqlx::Error> {
        let outcome = match self.operation.run(tx).await {
            Ok(out) => Ok(out),
            Err(Fail::Refused(error)) => Err(error),
            Err(Fail::Database(error)) => return Err(error),
        };
        let granted = outcome.is_ok();
        self.outcome = Some(outcome);
        Ok(granted)
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_first(&self) -> bool {
        O::FIRST
    }

    fn finish(self: Box<Self>, failure: Option<Error>) {
        let outcome = match (failure, self.outcome) {
            (Some(failure), _) => Err(failure),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(Error::new(ErrorKind::Internal, "a request was not run: please report it")),
        };
        // The caller may have gone away.
        let _ = self.reply.send(outcome);
    }
}

/// A transaction that failed as a whole.
struct Abort {
    cause: sqlx::Error,
    /// The error in the commit, and whether the rollback after it succeeded.
    commit: Option<bool>,
}

impl Abort {
    fn error(&self) -> Error {
        match self.commit {
            Some(rolled_back) => error::translate_commit(&self.cause, rolled_back),
            None => error::translate(&self.cause),
        }
    }
}

/// A connection that is opened again after it failed.
pub(crate) struct Connection {
    options: Options,
    open: Option<SqliteConnection>,
    touched: Vec<StreamName>,
}

impl Connection {
    pub(crate) fn writer(options: Options, conn: SqliteConnection) -> Self {
        // Where the file is gone, an empty one in its place would hide it.
        let options = options.create_if_missing(false);
        Self { options, open: Some(conn), touched: Vec::new() }
    }

    pub(crate) fn reader(options: Options) -> Self {
        Self { options: options.create_if_missing(false), open: None, touched: Vec::new() }
    }

    /// The streams that were touched by what has been committed since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<StreamName> {
        std::mem::take(&mut self.touched)
    }

    pub(crate) async fn close(self) {
        if let Some(conn) = self.open {
            // Whatever goes wrong here, the next one to open the file recovers it.
            let _ = conn.close().await;
        }
    }

    /// Runs one request without a transaction.
    pub(crate) async fn read(&mut self, mut job: Box<dyn Job>) {
        if job.is_abandoned() {
            return;
        }
        let outcome = match self.connected().await {
            Ok(conn) => job.run(&mut Tx::new(conn, 0)).await,
            Err(cause) => Err(cause),
        };
        if outcome.as_ref().is_err_and(error::is_io) {
            self.open = None;
        }
        job.finish(outcome.err().map(|cause| error::translate(&cause)));
    }

    /// Runs requests in one transaction, in order. One that is refused does not disturb the others.
    pub(crate) async fn write(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        batch.retain(|job| !job.is_abandoned());
        batch.sort_by_key(|job| !job.is_first());
        let Err(abort) = self.attempt(batch).await else {
            batch.drain(..).for_each(|job| job.finish(None));
            return;
        };
        let unknown = abort.error().outcome() == Outcome::Unknown;
        // Somebody else who holds the database would make each of them wait in turn.
        if unknown || batch.len() <= 1 || error::is_busy(&abort.cause) {
            batch.drain(..).for_each(|job| job.finish(Some(abort.error())));
            return;
        }
        // One of them is to blame, and nothing took place: each by itself.
        for mut job in batch.drain(..) {
            let failure = self.attempt(std::slice::from_mut(&mut job)).await.err();
            job.finish(failure.map(|abort| abort.error()));
        }
    }

    async fn attempt(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Abort> {
        if batch.is_empty() {
            return Ok(());
        }
        let failed = |cause| Abort { cause, commit: None };
        let conn = self.connected().await.map_err(failed)?;
        let abort = match work(conn, batch).await {
            Ok(Some(mut touched)) => match execute(conn, "COMMIT").await {
                Ok(()) => {
                    self.touched.append(&mut touched);
                    return Ok(());
                }
                Err(cause) => Abort { cause, commit: Some(false) },
            },
            Ok(None) => match execute(conn, "ROLLBACK").await {
                Ok(()) => return Ok(()),
                Err(cause) => failed(cause),
            },
            Err(cause) => failed(cause),
        };
        // SQLite may have rolled back by itself, in which case this is an error; a new connection is safe in any case.
        let rolled_back = execute(conn, "ROLLBACK").await.is_ok();
        if !rolled_back || error::is_io(&abort.cause) {
            self.open = None;
        }
        Err(Abort { commit: abort.commit.map(|_| rolled_back), ..abort })
    }

    async fn connected(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let conn = match self.open.take() {
            Some(conn) => conn,
            None => self.options.connect().await?,
        };
        Ok(self.open.insert(conn))
    }
}

/// Begins, and runs all. Returns the streams to wake, if there is anything to commit.
async fn work(
    conn: &mut SqliteConnection,
    batch: &mut [Box<dyn Job>],
) -> Result<Option<Vec<StreamName>>, sqlx::Error> {
    let mut tx = begin(conn).await?;
    if let [job] = batch {
        return Ok(job.run(&mut tx).await?.then_some(tx.touched));
    }
    execute(tx.conn, "SAVEPOINT request").await?;
    for job in batch {
        let granted = job.run(&mut tx).await?;
        let statement = if granted { "RELEASE request; SAVEPOINT request" } else { "ROLLBACK TO request" };
        execute(tx.conn, statement).await?;
    }
    Ok(Some(tx.touched))
}

/// Begins as the only one that writes to the file.
pub(crate) async fn begin(conn: &mut SqliteConnection) -> Result<Tx<'_>, sqlx::Error> {
    // Immediate: a transaction that reads first and writes later can find that somebody else wrote in between. Each call to
    // SQLite's thread costs more than most statements, so some go together.
    let now: i64 =
        sqlx::query_scalar("BEGIN IMMEDIATE; SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)")
            .fetch_one(&mut *conn)
            .await?;
    Ok(Tx::new(conn, crate::codec::count(now)))
}

/// The store's clock.
pub(crate) async fn clock(conn: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let now: i64 = sqlx::query_scalar("SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)")
        .fetch_one(conn)
        .await?;
    Ok(crate::codec::count(now))
}

pub(crate) async fn execute(conn: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(conn).await.map(drop)
}
