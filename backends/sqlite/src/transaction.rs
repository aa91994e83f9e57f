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
pub(crate) struct Tx {
    pub(crate) conn: SqliteConnection,
    /// The store's clock: milliseconds of Unix time, read once the transaction had the database for itself.
    pub(crate) now: u64,
    touched: Vec<StreamName>,
}

impl Tx {
    /// Wakes whoever is blocked on the stream, once the transaction has been committed.
    pub(crate) fn touch(&mut self, stream: &StreamName) {
        self.touched.push(stream.clone());
    }
}

/// Something to do in a transaction. It may be run again if the transaction failed, so it keeps no state.
#[async_trait]
pub(crate) trait Operation: Send + Sync + 'static {
    type Out: Send + 'static;

    async fn run(&self, tx: &mut Tx) -> Result<Self::Out, Fail>;
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
    async fn run(&mut self, tx: &mut Tx) -> Result<bool, sqlx::Error>;

    /// Nobody waits for it any more.
    fn is_abandoned(&self) -> bool;

    /// Sends the outcome: the one that was kept, or this.
    fn finish(self: Box<Self>, failure: Option<Error>);
}

#[async_trait]
impl<O: Operation> Job for Request<O> {
    async fn run(&mut self, tx: &mut Tx) -> Result<bool, sqlx::Error> {
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
    open: Option<Tx>,
    touched: Vec<StreamName>,
}

impl Connection {
    pub(crate) fn writer(options: Options, conn: SqliteConnection) -> Self {
        // Where the file is gone, an empty one in its place would hide it.
        let options = options.create_if_missing(false);
        Self { options, open: Some(Tx { conn, now: 0, touched: Vec::new() }), touched: Vec::new() }
    }

    pub(crate) fn reader(options: Options) -> Self {
        Self { options: options.create_if_missing(false), open: None, touched: Vec::new() }
    }

    /// The streams that were touched by what has been committed since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<StreamName> {
        std::mem::take(&mut self.touched)
    }

    pub(crate) async fn close(self) {
        if let Some(tx) = self.open {
            // Whatever goes wrong here, the next one to open the file recovers it.
            let _ = tx.conn.close().await;
        }
    }

    /// Runs one request without a transaction.
    pub(crate) async fn read(&mut self, mut job: Box<dyn Job>) {
        if job.is_abandoned() {
            return;
        }
        let outcome = match self.connected().await {
            Ok(tx) => job.run(tx).await,
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
        let Err(abort) = self.attempt(batch).await else {
            batch.drain(..).for_each(|job| job.finish(None));
            return;
        };
        let unknown = abort.error().outcome() == Outcome::Unknown;
        if unknown || batch.len() <= 1 {
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
        let tx = self.connected().await.map_err(failed)?;
        tx.touched.clear();
        let worked = work(tx, batch).await;
        let abort = match worked {
            Ok(true) => match execute(tx, "COMMIT").await {
                Ok(()) => {
                    let mut touched = std::mem::take(&mut tx.touched);
                    self.touched.append(&mut touched);
                    return Ok(());
                }
                Err(cause) => Abort { cause, commit: Some(false) },
            },
            Ok(false) => match execute(tx, "ROLLBACK").await {
                Ok(()) => return Ok(()),
                Err(cause) => failed(cause),
            },
            Err(cause) => failed(cause),
        };
        // SQLite may have rolled back by itself, in which case this is an error; a new connection is safe in any case.
        let rolled_back = execute(tx, "ROLLBACK").await.is_ok();
        if !rolled_back || error::is_io(&abort.cause) {
            self.open = None;
        }
        Err(Abort { commit: abort.commit.map(|_| rolled_back), ..abort })
    }

    async fn connected(&mut self) -> Result<&mut Tx, sqlx::Error> {
        let tx = match self.open.take() {
            Some(tx) => tx,
            None => Tx { conn: self.options.connect().await?, now: 0, touched: Vec::new() },
        };
        Ok(self.open.insert(tx))
    }
}

/// Begins, and runs all. Returns whether there is anything to commit.
async fn work(tx: &mut Tx, batch: &mut [Box<dyn Job>]) -> Result<bool, sqlx::Error> {
    // Immediate: a transaction that reads first and writes later can find that somebody else wrote in between. Each call to
    // SQLite's thread costs more than most statements, so some go together.
    let now: i64 =
        sqlx::query_scalar("BEGIN IMMEDIATE; SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)")
            .fetch_one(&mut tx.conn)
            .await?;
    tx.now = crate::codec::count(now);
    if let [job] = batch {
        return job.run(tx).await;
    }
    execute(tx, "SAVEPOINT request").await?;
    for job in batch {
        let granted = job.run(tx).await?;
        let statement = if granted { "RELEASE request; SAVEPOINT request" } else { "ROLLBACK TO request" };
        execute(tx, statement).await?;
    }
    Ok(true)
}

async fn execute(tx: &mut Tx, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(&mut tx.conn).await.map(drop)
}
