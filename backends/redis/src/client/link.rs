//! Who uses which connection, and for how long.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{Client, Connection, Fault};
use crate::settings::Settings;

/// How many reading connections are kept while nobody reads. More are closed; a later read makes a new one.
const IDLE_READERS_MAX: usize = 32;

/// The command of a client.
pub(crate) type CommandOf<C> = <<C as Client>::Connection as Connection>::Command;
/// The reply of a client.
pub(crate) type ValueOf<C> = <<C as Client>::Connection as Connection>::Value;

/// One shared connection for commands, and one connection for each read under way.
///
/// Reads have their own since a blocked one holds up all behind it, and a large reply would hold up acks and heartbeats. A
/// read that does not come to its end takes its connection with it: what the server would still answer there must reach
/// nobody, and closing the socket is what tells the server that nobody waits.
pub(crate) struct Link<C: Client> {
    client: C,
    settings: Settings,
    shared: Shared<C::Connection>,
    idle: Mutex<Vec<C::Connection>>,
    closed: watch::Sender<bool>,
}

impl<C: Client> Link<C> {
    pub(crate) fn new(client: C, settings: Settings) -> Self {
        Self {
            client,
            settings,
            shared: Shared::default(),
            idle: Mutex::default(),
            closed: watch::Sender::new(false),
        }
    }

    /// Runs a command on the shared connection.
    pub(crate) async fn run(&self, command: &CommandOf<C>) -> Result<ValueOf<C>, Fault> {
        let (life, mut connection) = self.shared().await?;
        let reply = within(self.settings.response_timeout, connection.send(command)).await;
        self.keep_shared(life, reply)
    }

    /// Runs commands in one round trip on the shared connection.
    pub(crate) async fn run_all(&self, commands: Vec<CommandOf<C>>) -> Result<Vec<ValueOf<C>>, Fault> {
        let (life, mut connection) = self.shared().await?;
        let replies = within(self.settings.response_timeout, connection.send_all(commands)).await;
        self.keep_shared(life, replies)
    }

    /// Runs a command on a reading connection; the server may wait for `block` before it answers.
    pub(crate) async fn read(
        &self,
        command: &CommandOf<C>,
        block: Option<Duration>,
    ) -> Result<ValueOf<C>, Fault> {
        let limit = block.map_or(self.settings.response_timeout, |block| block + self.settings.block_slack);
        let mut connection = self.checkout().await?;
        let reply = self.unless_closed(within(limit, connection.send(command)), true).await;
        self.checkin(connection, reply)
    }

    /// Runs commands in one round trip on a reading connection.
    pub(crate) async fn read_all(&self, commands: Vec<CommandOf<C>>) -> Result<Vec<ValueOf<C>>, Fault> {
        let limit = self.settings.response_timeout;
        let mut connection = self.checkout().await?;
        let replies = self.unless_closed(within(limit, connection.send_all(commands)), true).await;
        self.checkin(connection, replies)
    }

    /// Closes the connections; reads under way end.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
        lock(&self.shared.live).take();
        lock(&self.idle).clear();
    }

    /// The shared connection, and which one it is. Callers that find none make one together.
    async fn shared(&self) -> Result<(u64, C::Connection), Fault> {
        let live = || lock(&self.shared.live).clone();
        if let Some(live) = live() {
            return Ok(live);
        }
        let seen = self.shared.attempts.load(Ordering::SeqCst);
        let mut failure = self.shared.connecting.lock().await;
        if let Some(live) = live() {
            return Ok(live);
        }
        // Somebody's attempt ended while this call waited for its turn: what it found holds for this call too. Otherwise
        // a crowd of calls would queue up and try one after the other, each with its own timeout.
        let attempts = self.shared.attempts.load(Ordering::SeqCst);
        if let Some(fault) = failure.as_ref()
            && attempts > seen
        {
            return Err(fault.clone());
        }
        let result = self.connect().await;
        self.shared.attempts.store(attempts + 1, Ordering::SeqCst);
        match result {
            Ok(connection) => {
                *failure = None;
                let live = (attempts, connection);
                *lock(&self.shared.live) = Some(live.clone());
                // Closed meanwhile: then nobody takes it away any more.
                if *self.closed.borrow() {
                    lock(&self.shared.live).take();
                }
                Ok(live)
            }
            Err(fault) => {
                *failure = Some(fault.clone());
                Err(fault)
            }
        }
    }

    /// Drops the shared connection if it failed, unless another one took its place meanwhile.
    fn keep_shared<T>(&self, life: u64, reply: Result<T, Fault>) -> Result<T, Fault> {
        if reply.is_err() {
            // A timeout may mean that the socket is half open, which only a new one can tell.
            lock(&self.shared.live).take_if(|(current, _)| *current == life);
        }
        reply
    }

    async fn checkout(&self) -> Result<C::Connection, Fault> {
        let idle = lock(&self.idle).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.connect().await,
        }
    }

    /// Takes a connection back from a read that came to its end.
    fn checkin<T>(&self, connection: C::Connection, reply: Result<T, Fault>) -> Result<T, Fault> {
        let mut idle = lock(&self.idle);
        if reply.is_err() {
            // What broke this connection has likely broken the others: one failed read tells for all of them.
            idle.clear();
        } else if idle.len() < IDLE_READERS_MAX && !*self.closed.borrow() {
            idle.push(connection);
        }
        reply
    }

    async fn connect(&self) -> Result<C::Connection, Fault> {
        let connecting = timeout(self.settings.connect_timeout, self.client.connect());
        let connected = async { connecting.await.unwrap_or(Err(Fault::NotConnected(None))) };
        let connection = self.unless_closed(connected, false).await?;
        tracing::debug!(server = ?self.client, "connected");
        Ok(connection)
    }

    async fn unless_closed<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
        sent: bool,
    ) -> Result<T, Fault> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Fault::Closed { sent }),
            result = work => result,
        }
    }
}

impl<C: Client> fmt::Debug for Link<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("client", &self.client)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

struct Shared<T> {
    /// The connection and its number.
    live: Mutex<Option<(u64, T)>>,
    /// How many attempts at connecting have ended.
    attempts: AtomicU64,
    /// Held while connecting. Says why the last attempt failed.
    connecting: tokio::sync::Mutex<Option<Fault>>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            live: Mutex::default(),
            attempts: AtomicU64::new(0),
            connecting: tokio::sync::Mutex::default(),
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or(Err(Fault::TimedOut))
}

/// Nothing can panic while one of these locks is held, and what they guard is valid at every instant.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
