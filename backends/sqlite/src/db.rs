//! The connections, and the tasks that own them.
//!
//! A query on a connection must not be dropped half-way: a transaction would stay open, or its commit take place unseen. So
//! no connection is ever borrowed by a caller's future. Each belongs to a task; requests go there through a queue, and a
//! caller that goes away leaves only an answer that nobody reads.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use highwater::{Error, Result, StreamName};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Settings,
    effects::{self, Open, Session},
    error,
    schema::{self, Options},
    transaction::{Connection, Job, Operation, Request},
    wake::{self, Wakeups},
};

/// How many requests share one commit at most. More of them hold up the first ones; fewer sync more often.
const GROUP_MAX: usize = 128;
/// How many requests wait in a queue before callers wait to get in.
const QUEUE_MAX: usize = 1024;
/// Connections that read side by side. Each is a thread.
const READERS: usize = 2;

pub(crate) struct Db {
    path: PathBuf,
    writes: mpsc::Sender<Box<dyn Job>>,
    reads: mpsc::Sender<Box<dyn Job>>,
    wakeups: Arc<Wakeups>,
    closed: watch::Sender<bool>,
    turns: Turns,
    options: Options,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Db {
    pub(crate) async fn open(path: &Path, settings: &Settings) -> Result<Self> {
        settings.validate()?;
        let path = schema::file(path)?;
        let options = schema::options(&path, settings);
        let (writer, reader) = {
            // In a task of its own, since the caller may go away while tables are being created.
            let (options, patience) = (options.clone(), settings.busy_timeout);
            let opening = tokio::spawn(async move {
                let writer = schema::create(&options, patience).await?;
                Ok((writer, options))
            });
            let opened: Result<_> = opening.await.map_err(|_| error::closed())?;
            opened?
        };
        let (writes, write_queue) = mpsc::channel(QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(QUEUE_MAX);
        let closed = watch::Sender::new(false);
        let wakeups = Arc::new(Wakeups::default());
        let writer = Connection::writer(options, writer);
        let turns = Turns { lane: Arc::default(), patience: settings.busy_timeout };
        let writing = write(writer, write_queue, closed.subscribe(), wakeups.clone(), turns.clone());
        let mut tasks = vec![
            tokio::spawn(writing),
            tokio::spawn(wake::poll(
                reader.clone(),
                settings.poll_interval,
                wakeups.clone(),
                closed.subscribe(),
            )),
        ];
        let read_queue = Arc::new(AsyncMutex::new(read_queue));
        for _ in 0..READERS {
            let connection = Connection::reader(reader.clone());
            tasks.push(tokio::spawn(read(connection, read_queue.clone(), closed.subscribe())));
        }
        let options = reader.create_if_missing(false);
        Ok(Self { path, writes, reads, wakeups, closed, turns, options, tasks: Mutex::new(tasks) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs an operation in a transaction, which others may share; it takes effect entirely or not at all.
    pub(crate) async fn write<O: Operation>(&self, operation: O) -> Result<O::Out> {
        self.run(&self.writes, operation).await
    }

    /// Runs an operation that is one statement and changes nothing.
    pub(crate) async fn read<O: Operation>(&self, operation: O) -> Result<O::Out> {
        self.run(&self.reads, operation).await
    }

    pub(crate) fn is_open(&self) -> Result<()> {
        if *self.closed.borrow() { Err(error::closed()) } else { Ok(()) }
    }

    /// Begins a transaction of a handler. It must not be dropped half-way.
    pub(crate) async fn open_transaction(self: Arc<Self>) -> Result<Open> {
        let turn = self.turns.next().await?;
        self.is_open()?;
        Open::begin(turn, &self.options).await.map_err(|cause| effects::not_begun(&cause))
    }

    /// Prepares to wait for changes of a stream. What changes from now on ends the wait.
    pub(crate) fn wait(&self, stream: &StreamName, block: Option<Duration>) -> wake::Wait {
        wake::Wait::new(&self.wakeups, stream, block, self.closed.subscribe())
    }

    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has closed its connection as well.
            let _ = task.await;
        }
        // One that is open ends as its handler does, and the connection with it.
        if let Ok(mut session) = self.turns.lane.try_lock() {
            *session = None;
        }
    }

    async fn run<O: Operation>(&self, queue: &mpsc::Sender<Box<dyn Job>>, operation: O) -> Result<O::Out> {
        self.is_open()?;
        let (reply, answer) = oneshot::channel();
        queue.send(Box::new(Request::new(operation, reply))).await.map_err(|_| error::closed())?;
        answer.await.unwrap_or_else(|_| Err(error::lost_reply()))
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.closed.send_replace(true);
    }
}

/// Who may write to the file, of this process: one after the other, in the order in which they came. SQLite by itself lets
/// whoever asks first when it is free, so that a row of transactions would starve the heartbeats beside them.
#[derive(Clone)]
struct Turns {
    /// With the connection for transactions of handlers, which are never more than one at a time.
    lane: Arc<AsyncMutex<Option<Session>>>,
    patience: Duration,
}

impl Turns {
    async fn next(&self) -> Result<OwnedMutexGuard<Option<Session>>> {
        let turn = self.lane.clone().lock_owned();
        tokio::time::timeout(self.patience, turn).await.map_err(|_| error::no_turn())
    }
}

/// Completes when the database is closed.
pub(crate) async fn until_closed(closed: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and the database with it.
    let _ = closed.wait_for(|closed| *closed).await;
}

async fn write(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
    mut closed: watch::Receiver<bool>,
    wakeups: Arc<Wakeups>,
    turns: Turns,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = until_closed(&mut closed), if !queue.is_closed() => {
                // What is in the queue already is still done.
                queue.close();
                continue;
            }
            count = queue.recv_many(&mut batch, GROUP_MAX) => if count == 0 { break },
        }
        match turns.next().await {
            Ok(_turn) => {
                while batch.len() < GROUP_MAX
                    && let Ok(job) = queue.try_recv()
                {
                    batch.push(job);
                }
                connection.write(&mut batch).await;
            }
            Err(_) => batch.drain(..).for_each(|job| job.finish(Some(error::no_turn()))),
        }
        wakeups.wake(connection.take_touched());
    }
    connection.close().await;
}

async fn read(
    mut connection: Connection,
    queue: Arc<AsyncMutex<mpsc::Receiver<Box<dyn Job>>>>,
    mut closed: watch::Receiver<bool>,
) {
    loop {
        let job = {
            let mut queue = queue.lock().await;
            tokio::select! {
                biased;
                () = until_closed(&mut closed), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
                job = queue.recv() => job,
            }
        };
        let Some(job) = job else { break };
        connection.read(job).await;
    }
    connection.close().await;
}

/// Refuses to ask for nothing.
pub(crate) fn at_least_one(name: &'static str, count: usize) -> Result<()> {
    if count == 0 { Err(Error::invalid("ask for at least one").with("name", name)) } else { Ok(()) }
}
