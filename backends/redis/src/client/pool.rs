//! Who uses which connection, and for how long.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Command, Connection, Driver, Fault, ReadReply, Value,
    address::Node,
    dialer::{Dialer, within},
    link::{BatchOf, CommandOf, ValueOf},
    tail::Tails,
};

/// How many reading connections are kept while nobody reads. More are closed; a later read makes a new one.
const IDLE_READERS_MAX: usize = 32;

/// A reply, or the text of an error reply.
pub(crate) type Answer<D> = Result<ValueOf<D>, String>;

/// Which connection a command goes by.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// The shared one.
    Shared,
    /// One of its own, on which the reply may take this long.
    Own(Duration),
    /// One of those that reads share, always the same for the same number.
    Lane(usize),
}

/// How many connections those reads share that have none of their own.
const LANES: usize = 4;

/// To one server: a shared connection for commands, and one connection for each read under way.
///
/// Reads have their own since a blocked one holds up all behind it, and a large reply would hold up acks and heartbeats. A
/// read that does not come to its end takes its connection with it: what the server would still answer there must reach
/// nobody, and closing the socket is what tells the server that nobody waits.
pub(crate) struct Pool<D: Driver> {
    dialer: Arc<Dialer<D>>,
    /// `None`: where the address points.
    pub(crate) node: Option<Node>,
    shared: Together<D::Connection>,
    idle: Mutex<Vec<D::Connection>>,
    lanes: [Together<D::Connection>; LANES],
    pub(crate) tails: Tails<D>,
    /// For who must be alone on it, and which shared one there was when it was made: the address may point elsewhere by now.
    alone: tokio::sync::Mutex<Option<(Option<u64>, D::Connection)>>,
}

impl<D: Driver> Pool<D> {
    pub(crate) fn new(dialer: Arc<Dialer<D>>, node: Option<Node>) -> Self {
        let (shared, lanes, alone) = Default::default();
        Self { dialer, node, shared, idle: Mutex::default(), lanes, tails: Tails::default(), alone }
    }

    /// Runs a command.
    pub(crate) async fn one(&self, by: By, command: &CommandOf<D>) -> Result<Answer<D>, Fault> {
        let work = async |connection: &mut D::Connection| Ok(connection.send(command).await?.checked());
        let is_demoted = |answer: &Answer<D>| is_of_replica(answer);
        self.with(by, work, is_demoted).await
    }

    /// Runs a read.
    pub(crate) async fn read(
        &self,
        by: By,
        command: &CommandOf<D>,
    ) -> Result<Result<ReadReply<ValueOf<D>>, String>, Fault> {
        let work = async |connection: &mut D::Connection| {
            let reply = match by {
                By::Own(_) => connection.read(command).await?,
                By::Lane(_) => connection.read_among(command).await?,
                By::Shared => ReadReply::Value(connection.send(command).await?),
            };
            Ok(match reply {
                ReadReply::Value(value) => value.checked().map(ReadReply::Value),
                frame @ ReadReply::Frame(_) => Ok(frame),
            })
        };
        self.with(by, work, is_of_replica).await
    }

    /// Runs commands in one round trip.
    pub(crate) async fn all(&self, by: By, batch: &BatchOf<D>) -> Result<Vec<Answer<D>>, Fault> {
        let work = async |connection: &mut D::Connection| {
            let replies = connection.send_all(batch).await?;
            Ok(replies.into_iter().map(Value::checked).collect())
        };
        let is_demoted = |answers: &Vec<Answer<D>>| answers.iter().any(is_of_replica);
        self.with(by, work, is_demoted).await
    }

    /// Runs a command on a node that is about to become the owner of its key.
    pub(crate) async fn ask(&self, limit: Duration, command: &CommandOf<D>) -> Result<Answer<D>, Fault> {
        let work = async |connection: &mut D::Connection| {
            // It holds for the next command of the connection, which nobody else may come before.
            connection.send(&Command::new("ASKING")).await?;
            Ok(connection.send(command).await?.checked())
        };
        self.with(By::Own(limit), work, is_of_replica).await
    }

    /// Takes steps on a connection that nobody else uses meanwhile. `None`: somebody does, or none can be made.
    ///
    /// The connection is kept for the next one if the steps came to their end, and have a result.
    pub(crate) async fn alone<T>(
        &self,
        steps: impl AsyncFnOnce(&mut D::Connection) -> Result<Option<T>, Fault>,
    ) -> Option<Result<Option<T>, Fault>> {
        let mut kept = self.alone.try_lock().ok()?;
        let life = self.shared.life();
        let mut connection = match kept.take() {
            Some((made, connection)) if made == life => connection,
            _ => self.connect().await.ok()?,
        };
        let steps = within(self.response_timeout(), steps(&mut connection), Fault::TimedOut);
        let result = self.dialer.unless_closed(steps, true).await;
        if matches!(result, Ok(Some(_))) && !self.dialer.is_closed() {
            *kept = Some((life, connection));
        }
        Some(result)
    }

    /// Whether there is a connection that did not fail.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.peek().is_some()
    }

    /// Whether reads have gone by this connection of those that they share.
    pub(crate) fn has_lane(&self, number: usize) -> bool {
        self.lanes[number % LANES].peek().is_some()
    }

    /// Closes what is not in use; what is in use closes when it ends.
    pub(crate) fn clear(&self) {
        self.shared.clear();
        lock(&self.idle).clear();
        self.lanes.iter().for_each(Together::clear);
        self.tails.end();
        // In use, it is closed at the end.
        if let Ok(mut alone) = self.alone.try_lock() {
            alone.take();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.dialer.is_closed()
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        self.dialer.settings.response_timeout
    }

    async fn with<T>(
        &self,
        by: By,
        work: impl AsyncFnOnce(&mut D::Connection) -> Result<T, Fault>,
        is_demoted: impl Fn(&T) -> bool,
    ) -> Result<T, Fault> {
        match by {
            By::Shared => self.together(&self.shared, |_| {}, work, is_demoted).await,
            By::Lane(number) => {
                let lane = &self.lanes[number % LANES];
                self.together(lane, D::Connection::for_reads, work, is_demoted).await
            }
            By::Own(limit) => {
                let beside = self.shared.life();
                let idle = lock(&self.idle).pop();
                let mut connection = match idle {
                    Some(connection) => connection,
                    None => self.connect().await?,
                };
                let work = within(limit, work(&mut connection), Fault::TimedOut);
                let result = self.dialer.unless_closed(work, true).await;
                if let (Err(Fault::TimedOut), Some(life)) = (&result, beside) {
                    // As silent as this one, most likely: what comes next would wait as long again to find out.
                    self.shared.forget(life);
                }
                let mut idle = lock(&self.idle);
                if result.as_ref().map_or(true, is_demoted) {
                    // What broke this connection has likely broken the others: one failed read tells for all of them.
                    idle.clear();
                } else if idle.len() < IDLE_READERS_MAX && !self.dialer.is_closed() {
                    idle.push(connection);
                }
                result
            }
        }
    }

    async fn together<T>(
        &self,
        shared: &Together<D::Connection>,
        prepare: impl FnOnce(&D::Connection),
        work: impl AsyncFnOnce(&mut D::Connection) -> Result<T, Fault>,
        is_demoted: impl Fn(&T) -> bool,
    ) -> Result<T, Fault> {
        let make = async || self.connect().await.inspect(prepare);
        let (life, mut connection) = shared.get(make).await?;
        // Closed meanwhile: then nobody takes it away any more.
        if self.dialer.is_closed() {
            shared.clear();
        }
        let result = within(self.response_timeout(), work(&mut connection), Fault::TimedOut).await;
        // A timeout may mean that the socket is half open, which only a new one can tell.
        if result.as_ref().map_or(true, is_demoted) {
            shared.forget(life);
        }
        if matches!(result, Err(Fault::TimedOut)) {
            lock(&self.idle).clear();
        }
        result
    }

    pub(crate) async fn connect(&self) -> Result<D::Connection, Fault> {
        // It is rare, and its future is large.
        Box::pin(self.dialer.connect(self.node.as_ref())).await
    }
}

/// Whether the server has become a replica. The address may point elsewhere by now, so the connection is given up.
fn is_of_replica<T>(answer: &Result<T, String>) -> bool {
    matches!(answer, Err(text) if text.contains("READONLY ") || text.contains("master -> replica"))
}

/// What callers share, and those that find none make together.
pub(crate) struct Together<T> {
    /// What it is, and which one.
    live: Mutex<Option<(u64, T)>>,
    /// How many attempts at making one have ended.
    attempts: AtomicU64,
    /// Held while one is made. Says why the last attempt failed.
    making: tokio::sync::Mutex<Option<Fault>>,
}

impl<T: Clone> Together<T> {
    pub(crate) async fn get(&self, make: impl AsyncFnOnce() -> Result<T, Fault>) -> Result<(u64, T), Fault> {
        let live = || lock(&self.live).clone();
        if let Some(live) = live() {
            return Ok(live);
        }
        let seen = self.attempts.load(Ordering::SeqCst);
        let mut failure = self.making.lock().await;
        if let Some(live) = live() {
            return Ok(live);
        }
        // Somebody's attempt ended while this call waited for its turn: what it found holds for this call too. Otherwise
        // a crowd of calls would queue up and try one after the other, each with its own timeout.
        let attempts = self.attempts.load(Ordering::SeqCst);
        if let Some(fault) = failure.as_ref()
            && attempts > seen
        {
            return Err(fault.clone());
        }
        let result = make().await;
        self.attempts.store(attempts + 1, Ordering::SeqCst);
        match result {
            Ok(made) => {
                *failure = None;
                let live = (attempts, made);
                *lock(&self.live) = Some(live.clone());
                Ok(live)
            }
            Err(fault) => {
                *failure = Some(fault.clone());
                Err(fault)
            }
        }
    }

    /// What there is now.
    pub(crate) fn peek(&self) -> Option<T> {
        lock(&self.live).as_ref().map(|(_, live)| live.clone())
    }

    /// Which one there is now.
    fn life(&self) -> Option<u64> {
        lock(&self.live).as_ref().map(|(life, _)| *life)
    }

    /// Drops this one, unless another one took its place meanwhile.
    pub(crate) fn forget(&self, life: u64) {
        lock(&self.live).take_if(|(current, _)| *current == life);
    }

    pub(crate) fn clear(&self) {
        lock(&self.live).take();
    }
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self { live: Mutex::default(), attempts: AtomicU64::new(0), making: tokio::sync::Mutex::default() }
    }
}

/// Nothing can panic while one of these locks is held, and what they guard is valid at every instant.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
