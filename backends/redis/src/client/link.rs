//! Where a command goes, and where it goes next if it belongs elsewhere.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use highwater::{GroupName, Result, StreamName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Connection, Driver, Fault, ReadReply,
    address::Place,
    cluster::{Cluster, Redirect},
    dialer::Dialer,
    pool::{Answer, By, Pool},
    tail::Tails,
    waiter::Waiter,
};
use crate::settings::Settings;

/// A cluster that sends a command around longer than this does not agree on who owns the key.
const REDIRECTS_MAX: usize = 5;

/// The command of a driver.
pub(crate) type CommandOf<D> = <<D as Driver>::Connection as Connection>::Command;
/// The reply of a driver.
pub(crate) type ValueOf<D> = <<D as Driver>::Connection as Connection>::Value;
/// The batch of a driver.
pub(crate) type BatchOf<D> = <<D as Driver>::Connection as Connection>::Batch;

/// The way to the servers. Everything that belongs to one stream lies on one of them, so a command goes by a key.
///
/// A command is sent once. Only one that was refused since its key is elsewhere is sent again, there.
pub(crate) struct Link<D: Driver> {
    dialer: Arc<Dialer<D>>,
    route: Route<D>,
    /// The reads that may have a connection of their own.
    own: Arc<Semaphore>,
}

/// How a read reaches a server.
pub(crate) enum Way {
    /// By a connection of its own, which may be blocked.
    Own { _permit: Option<OwnedSemaphorePermit> },
    /// By one that reads share.
    Lane(usize),
}

enum Route<D: Driver> {
    One(Arc<Pool<D>>),
    Cluster(Cluster<D>),
}

impl<D: Driver> Link<D> {
    /// Reads the settings. Does no I/O.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let dialer = Arc::new(Dialer::new(settings)?);
        let route = match &dialer.address.place {
            Place::Cluster(_) => Route::Cluster(Cluster::new(dialer.clone())),
            _ => Route::One(Arc::new(Pool::new(dialer.clone(), None))),
        };
        let own = dialer.settings.reading_connections_max.min(Semaphore::MAX_PERMITS);
        Ok(Self { dialer, route, own: Arc::new(Semaphore::new(own)) })
    }

    /// Runs a command on the shared connection. Without a key it goes to any server.
    pub(crate) async fn run(&self, key: Option<&str>, command: &CommandOf<D>) -> Result<ValueOf<D>, Fault> {
        self.one(key, By::Shared, command).await
    }

    /// Runs commands in one round trip on the shared connection.
    pub(crate) async fn run_all(
        &self,
        key: Option<&str>,
        commands: Vec<CommandOf<D>>,
    ) -> Result<Vec<Result<ValueOf<D>, Fault>>, Fault> {
        self.all(key, By::Shared, commands).await
    }

    /// How a read goes for whoever this is.
    pub(crate) fn way(&self, reader: impl Hash) -> Way {
        match (&self.route, self.own.clone().try_acquire_owned()) {
            (Route::One(_), Err(_)) => Way::Lane(lane_of(reader)),
            // What lies in different slots of a cluster cannot be waited for together.
            (Route::One(_) | Route::Cluster(_), permit) => Way::Own { _permit: permit.ok() },
        }
    }

    /// How a read goes that takes effect behind all that this reader has sent on a connection that reads share, also what was
    /// dropped since: such a connection stays open, and sends it yet.
    pub(crate) fn way_behind(&self, reader: impl Hash + Copy) -> Way {
        match &self.route {
            Route::One(pool) if pool.has_lane(lane_of(reader)) => Way::Lane(lane_of(reader)),
            _ => self.way(reader),
        }
    }

    /// Somebody who waits for a stream without a connection. None in a cluster.
    pub(crate) fn waiter(&self, stream: &StreamName, group: Option<&GroupName>) -> Option<Waiter> {
        match &self.route {
            Route::One(pool) => Some(Tails::waiter(pool, stream, group)),
            Route::Cluster(_) => None,
        }
    }

    /// Runs a command on a reading connection; the server may wait for `block` before it answers.
    pub(crate) async fn read(
        &self,
        key: &str,
        way: &Way,
        command: &CommandOf<D>,
        block: Option<Duration>,
    ) -> Result<ReadReply<ValueOf<D>>, Fault> {
        let (by, pool) = (self.by(way, block), self.pool(Some(key)).await?);
        match self.noted(pool.read(by, command).await)? {
            Ok(reply) => Ok(reply),
            Err(text) => self.followed(&pool, by, command, Err(text)).await.map(ReadReply::Value),
        }
    }

    /// Runs commands in one round trip on a reading connection.
    pub(crate) async fn read_all(
        &self,
        key: &str,
        way: &Way,
        commands: Vec<CommandOf<D>>,
    ) -> Result<Vec<Result<ValueOf<D>, Fault>>, Fault> {
        self.all(Some(key), self.by(way, None), commands).await
    }

    /// Takes steps on a connection that nobody else uses meanwhile. `None`: somebody does, or none is kept for it.
    pub(crate) async fn alone<T>(
        &self,
        steps: impl AsyncFnOnce(&mut D::Connection) -> Result<Option<T>, Fault>,
    ) -> Option<Result<Option<T>, Fault>> {
        match &self.route {
            Route::One(pool) => pool.alone(steps).await,
            Route::Cluster(_) => None,
        }
    }

    fn by(&self, way: &Way, block: Option<Duration>) -> By {
        let settings = &self.dialer.settings;
        match way {
            Way::Own { .. } => {
                By::Own(block.map_or(settings.response_timeout, |block| block + settings.block_slack))
            }
            Way::Lane(number) => By::Lane(*number),
        }
    }

    /// Closes the connections; reads under way end.
    pub(crate) fn close(&self) {
        self.dialer.close();
        match &self.route {
            Route::One(pool) => pool.clear(),
            Route::Cluster(cluster) => cluster.clear(),
        }
    }

    async fn one(&self, key: Option<&str>, by: By, command: &CommandOf<D>) -> Result<ValueOf<D>, Fault> {
        let pool = self.pool(key).await?;
        let answer = self.noted(pool.one(by, command).await)?;
        self.followed(&pool, by, command, answer).await
    }

    async fn all(
        &self,
        key: Option<&str>,
        by: By,
        commands: Vec<CommandOf<D>>,
    ) -> Result<Vec<Result<ValueOf<D>, Fault>>, Fault> {
        let batch = D::Connection::batch(commands);
        let pool = self.pool(key).await?;
        let answers = self.noted(pool.all(by, &batch).await)?;
        let mut results = Vec::with_capacity(answers.len());
        for (answer, command) in answers.into_iter().zip(D::Connection::commands(&batch)) {
            // One after the other, so that they take effect in their order there too.
            results.push(self.followed(&pool, by, command, answer).await);
        }
        Ok(results)
    }

    async fn pool(&self, key: Option<&str>) -> Result<Arc<Pool<D>>, Fault> {
        match &self.route {
            Route::One(pool) => Ok(pool.clone()),
            Route::Cluster(cluster) => cluster.pool(key).await,
        }
    }

    async fn followed(
        &self,
        pool: &Arc<Pool<D>>,
        by: By,
        command: &CommandOf<D>,
        answer: Answer<D>,
    ) -> Result<ValueOf<D>, Fault> {
        match (&self.route, answer) {
            (_, Ok(value)) => Ok(value),
            (Route::One(_), Err(text)) => Err(Fault::Server(text)),
            (Route::Cluster(cluster), Err(text)) => {
                Box::pin(self.follow(cluster, pool.clone(), by, command, text)).await
            }
        }
    }

    /// Follows an answer that points elsewhere. The command has had no effect where the answer came from.
    async fn follow(
        &self,
        cluster: &Cluster<D>,
        mut pool: Arc<Pool<D>>,
        by: By,
        command: &CommandOf<D>,
        text: String,
    ) -> Result<ValueOf<D>, Fault> {
        let mut answer: Answer<D> = Err(text);
        for _ in 0..REDIRECTS_MAX {
            let Err(text) = &answer else { break };
            match cluster.redirect(text, &pool) {
                Some(Redirect::Moved(owner)) => {
                    pool = owner;
                    answer = self.noted(pool.one(by, command).await)?;
                }
                Some(Redirect::Ask(next)) => {
                    let limit = match by {
                        By::Shared | By::Lane(_) => self.dialer.settings.response_timeout,
                        By::Own(limit) => limit,
                    };
                    answer = self.noted(next.ask(limit, command).await)?;
                }
                None => break,
            }
        }
        answer.map_err(|text| cluster.fault(text))
    }

    /// Who cannot be reached may own nothing any more.
    fn noted<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        if let (Err(_), Route::Cluster(cluster)) = (&result, &self.route) {
            cluster.forget();
        }
        result
    }
}

/// The connection of those that reads share which this reader goes by, always the same.
fn lane_of(reader: impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    reader.hash(&mut hasher);
    hasher.finish() as usize
}

impl<D: Driver> fmt::Debug for Link<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.dialer.address)
            .field("settings", &self.dialer.settings)
            .finish_non_exhaustive()
    }
}
