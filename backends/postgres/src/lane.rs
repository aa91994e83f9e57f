//! The connections, and the tasks that own them.
//!
//! A statement on a connection must not be dropped half-way, and the pool's connections cannot be trusted: one whose `BEGIN`
//! was dropped comes back with the transaction open, and what is written on it then is lost. So no connection is borrowed by a
//! caller's future. Each lane is a task with a connection that it has cleaned; statements go there through a queue, and a
//! caller that goes away leaves only an answer that nobody reads.

use std::{
    borrow::Cow,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use highwater::{Outcome, Result};
use sqlx::{AssertSqlSafe, Connection, PgPool, Postgres, pool::PoolConnection, postgres::PgRow};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{error::Elapsed, timeout},
};

use crate::{error, forward::Execution, silence::Silence};

/// How many requests wait in a lane before callers wait to get in.
const QUEUE_MAX: usize = 1024;

/// How often a statement that is to be prepared is tried anew. Behind a pooler, each time may be on another connection.
const PREPARE_MAX: u32 = 8;

/// Where connections come from, and how long they may take to answer.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) pool: PgPool,
    pub(crate) patience: Duration,
    pub(crate) silence: Silence,
}

impl Source {
    /// Waits for an answer for as long as is right, and remembers if there was none.
    pub(crate) async fn answer<T>(&self, asking: impl Future<Output = T>) -> std::result::Result<T, Elapsed> {
        let answer = timeout(self.patience, asking).await;
        if answer.is_err() {
            self.silence.notice();
        }
        answer
    }

    async fn acquire(&self) -> Result<PoolConnection<Postgres>> {
        match self.answer(self.pool.acquire()).await {
            Ok(Err(sqlx::Error::PoolTimedOut)) => {
                // Perhaps of a test that was not answered.
                self.silence.notice();
                Err(error::no_connection())
            }
            Ok(conn) => conn.map_err(|cause| error::translate_connect(&cause)),
            Err(_) => Err(error::no_connection()),
        }
    }
}

/// A statement that somebody waits for.
struct Job {
    sql: String,
    /// What prepares a part of it where it is not prepared, and where in the text that goes.
    prepare: Option<(usize, Arc<str>)>,
    /// What is known about it if it was sent and not answered.
    unanswered: Outcome,
    reply: oneshot::Sender<Result<Vec<PgRow>>>,
}

pub(crate) struct Lanes {
    queues: Vec<mpsc::Sender<Job>>,
    closed: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Lanes {
    pub(crate) fn start(source: &Source, count: usize) -> Self {
        let closed = watch::Sender::new(false);
        let mut tasks = Vec::with_capacity(count);
        let queues = (0..count)
            .map(|_| {
                let (queue, jobs) = mpsc::channel(QUEUE_MAX);
                let lane = Lane { source: source.clone(), conn: None };
                tasks.push(tokio::spawn(lane.run(jobs, closed.subscribe())));
                queue
            })
            .collect();
        Self { queues, closed, tasks: Mutex::new(tasks) }
    }

    /// Runs one statement that changes nothing. Those of one key are run in order.
    pub(crate) async fn read(&self, key: &impl Hash, sql: String) -> Result<Vec<PgRow>> {
        self.run(key, sql, None, Outcome::NotApplied).await
    }

    /// Runs one statement that takes effect entirely or not at all, also if the caller goes away.
    pub(crate) async fn write(&self, key: &impl Hash, sql: String) -> Result<Vec<PgRow>> {
        self.run(key, sql, None, Outcome::Unknown).await
    }

    /// As [`write`](Self::write), for a statement that is prepared where it is not.
    pub(crate) async fn write_prepared(
        &self,
        key: &impl Hash,
        Execution { limits, execute, prepare }: Execution,
    ) -> Result<Vec<PgRow>> {
        let prepare = (limits.len(), prepare);
        self.run(key, limits + &execute, Some(prepare), Outcome::Unknown).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has let go of its connection as well.
            let _ = task.await;
        }
    }

    async fn run(
        &self,
        key: &impl Hash,
        sql: String,
        prepare: Option<(usize, Arc<str>)>,
        unanswered: Outcome,
    ) -> Result<Vec<PgRow>> {
        if self.is_closed() {
            return Err(error::closed());
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let lane = usize::try_from(hash % self.queues.len() as u64).unwrap_or_default();
        let (reply, answer) = oneshot::channel();
        let job = Job { sql, prepare, unanswered, reply };
        self.queues[lane].send(job).await.map_err(|_| error::closed())?;
        answer.await.unwrap_or_else(|_| Err(error::closed().with_outcome(unanswered)))
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.closed.send_replace(true);
    }
}

struct Lane {
    source: Source,
    conn: Option<PoolConnection<Postgres>>,
}

impl Lane {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>, mut closed: watch::Receiver<bool>) {
        let pool_closed = self.source.pool.close_event();
        tokio::pin!(pool_closed);
        loop {
            let job = tokio::select! {
                biased;
                () = until_closed(&mut closed), if !jobs.is_closed() => {
                    // What is in the queue already is still done.
                    jobs.close();
                    continue;
                }
                // The pool waits for this connection before it is closed.
                () = &mut pool_closed, if !jobs.is_closed() => {
                    jobs.close();
                    continue;
                }
                job = jobs.recv() => job,
            };
            let Some(job) = job else { return };
            if job.reply.is_closed() {
                continue;
            }
            let answer = self.attempt(&job).await;
            // The caller may have gone away.
            let _ = job.reply.send(answer);
        }
    }

    async fn attempt(&mut self, job: &Job) -> Result<Vec<PgRow>> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => clean(&self.source, None).await?,
        };
        match self.source.answer(execute(&mut conn, job)).await {
            Ok(Ok(rows)) => {
                self.conn = Some(conn);
                Ok(rows)
            }
            Ok(Err(cause)) => {
                // After an error among several statements a transaction may be open.
                if error::spares_the_connection(&cause) && !job.sql.starts_with("BEGIN") {
                    self.conn = Some(conn);
                } else {
                    discard(conn);
                }
                Err(error::translate(&cause, job.unanswered))
            }
            Err(_) => {
                discard(conn);
                Err(error::timed_out(job.unanswered))
            }
        }
    }
}

/// Runs the statement. Where it has to be prepared first, the refusal has changed nothing.
async fn execute(conn: &mut PoolConnection<Postgres>, job: &Job) -> sqlx::Result<Vec<PgRow>> {
    let mut sql = Cow::Borrowed(job.sql.as_str());
    let mut refusals = 0;
    loop {
        let cause = match sqlx::raw_sql(AssertSqlSafe(&*sql)).fetch_all(&mut **conn).await {
            Ok(rows) => return Ok(rows),
            Err(cause) => cause,
        };
        refusals += 1;
        sql = match &job.prepare {
            Some((at, prepare)) if refusals <= PREPARE_MAX && error::is_unprepared(&cause) => {
                let (before, behind) = job.sql.split_at(*at);
                format!("{before}{prepare}; {behind}").into()
            }
            // Behind a pooler it is another connection by now, where somebody has prepared it.
            Some(_) if refusals <= PREPARE_MAX && error::is_prepared(&cause) => job.sql.as_str().into(),
            _ => return Err(cause),
        };
    }
}

/// Completes when the store is closed.
async fn until_closed(closed: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and the store with it.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// A connection of the pool with no transaction open on it, or with this one, which `BEGIN` begins.
pub(crate) async fn clean(source: &Source, begin: Option<&str>) -> Result<PoolConnection<Postgres>> {
    // Silent where there is nothing to end, as a lone `ROLLBACK` is not.
    let cleaning = "BEGIN; ROLLBACK";
    let mut dirty = 0;
    loop {
        let mut conn = source.acquire().await?;
        let ready = async {
            match begin {
                Some(begin) => {
                    let sql = AssertSqlSafe(format!("{cleaning}; {begin}"));
                    // It stays begun, and the driver knows it: a nested `begin` is a savepoint.
                    conn.begin_with(sql).await.map(std::mem::forget)
                }
                None => sqlx::raw_sql(cleaning).execute(&mut *conn).await.map(drop),
            }
        };
        let cause = match source.answer(ready).await {
            Ok(Ok(())) => return Ok(conn),
            Ok(Err(cause)) => cause,
            Err(_) => {
                discard(conn);
                return Err(error::timed_out(Outcome::NotApplied));
            }
        };
        discard(conn);
        if !error::is_dirty(&cause) || dirty > source.pool.options().get_max_connections() {
            return Err(error::translate_connect(&cause));
        }
        dirty += 1;
    }
}

/// Closes a connection at once. Given back, it would keep its place in the pool until the server answers.
pub(crate) fn discard(conn: PoolConnection<Postgres>) {
    drop(conn.detach());
}
