//! One server, as both stores.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::FutureExt;
use highwater::{Error, Result, backend::StreamCapabilities};

#[cfg(all(feature = "fred", not(feature = "redis-rs")))]
use crate::client::Fred as DefaultClient;
#[cfg(feature = "redis-rs")]
use crate::client::RedisRs as DefaultClient;
use crate::{
    client::{Command, CommandOf, Driver, Fault, Link, ValueOf},
    commands::{self, Build},
    error,
    packed::Packed,
    reply,
    scripts::{Script, Scripts},
    settings::Settings,
};

/// A Redis server as a stream store, as a checkpoint store, and as both in one atomic step.
///
/// Calls may run side by side. Commands share one connection; a read has its own while it runs, so that a blocked one holds up
/// nothing, and dropping it closes the socket. Reads beyond
/// [`reading_connections_max`](Settings::reading_connections_max) share a few, and wait for entries together. A connection that
/// broke fails the calls that were waiting on it; the next call makes a new one. Clones are cheap, and share all of this.
///
/// The parameter is the client: [`RedisRs`](crate::RedisRs) if its feature is on, else [`Fred`](crate::Fred).
///
/// `Debug` shows the address and no password.
pub struct Redis<D: Driver = DefaultClient> {
    pub(crate) link: Arc<Link<D>>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) capabilities: StreamCapabilities,
    /// The longest that a reader of a group blocks.
    pub(crate) group_block_max: Duration,
}

/// The longest that a reader of a group waits where nothing wakes it when its stream goes.
pub(crate) const BLOCK_MAX_UNWOKEN: Duration = Duration::from_secs(2);

impl Redis {
    /// Connects to a server, with the default settings.
    ///
    /// # Errors
    ///
    /// [`Invalid`](highwater::ErrorKind::Invalid) if the URL cannot be read, [`Denied`](highwater::ErrorKind::Denied) if the
    /// server refuses the credentials, [`Unavailable`](highwater::ErrorKind::Unavailable) if it cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it closes the connection.
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::connect_with(Settings::new(url)).await
    }

    /// Connects to a server, with these settings.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), and [`Invalid`](highwater::ErrorKind::Invalid) for a timeout of zero.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it closes the connection.
    pub async fn connect_with(settings: Settings) -> Result<Self> {
        Self::open(settings).await
    }
}

impl<D: Driver> Redis<D> {
    /// Connects to a server by the client that the type names, with these settings.
    ///
    /// ```no_run
    /// # #[cfg(feature = "fred")]
    /// # async fn example() -> highwater::Result<()> {
    /// use highwater_redis::{Fred, Redis, Settings};
    ///
    /// let redis = Redis::<Fred>::open(Settings::new("redis://127.0.0.1:6379")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`connect_with`](Redis::connect_with).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it closes the connection.
    pub async fn open(settings: Settings) -> Result<Self> {
        // The type of the future ends here: with its full depth, what a caller builds around it may not compile.
        Self::opened(settings).boxed().await
    }

    async fn opened(settings: Settings) -> Result<Self> {
        settings.validate()?;
        let link = Arc::new(Link::<D>::new(settings)?);
        // First, since it is short: a server that waits for a password cuts the connection at a long argument.
        let counts = counts_entries(&link).await?;
        let scripts = Arc::new(Scripts::load(&link).await?);
        let capabilities = StreamCapabilities::none().with(true, counts, false);
        // Servers began to count entries and to wake the readers of a stream that goes in the same version.
        let group_block_max = if counts { commands::BLOCK_MAX } else { BLOCK_MAX_UNWOKEN };
        Ok(Self { link, scripts, capabilities, group_block_max })
    }

    /// Whether a blocked reader of a group learns that its stream went.
    pub(crate) fn wakes_readers(&self) -> bool {
        self.capabilities.counts_entries
    }

    /// Runs a script and opens its answer.
    pub(crate) async fn script(
        &self,
        script: Script,
        keys: &[&str],
        arguments: impl FnOnce(&mut Packed),
    ) -> Result<ValueOf<D>, Fault> {
        self.scripts.run(&self.link, script, keys, arguments).await
    }
}

/// Whether the server counts the entries that were ever added. It came with the optional arguments of `XSETID`.
async fn counts_entries<D: Driver>(link: &Link<D>) -> Result<bool> {
    // Within a script, since `fred` cannot read the reply in the third version of the protocol.
    const ARITY: &str = "return redis.call('COMMAND', 'INFO', 'XSETID')[1][2]";
    let command = CommandOf::<D>::new("EVAL").with(ARITY).number(0);
    match link.run(None, &command).await {
        // A negative arity means: at least this many arguments.
        Ok(arity) => Ok(reply::int(arity).is_ok_and(|arity| arity < 0)),
        // Who may not ask does without the counts.
        Err(Fault::Server(text)) if !text.starts_with("NOAUTH") => Ok(false),
        Err(fault) => Err(error::reading("connect")(fault)),
    }
}

/// Refuses a limit of no entries, which servers read as all there is.
pub(crate) fn at_least_one(limit: usize) -> Result<()> {
    if limit == 0 {
        return Err(Error::invalid("a read must ask for at least one entry").with("limit", limit));
    }
    Ok(())
}

impl<D: Driver> Clone for Redis<D> {
    fn clone(&self) -> Self {
        Self { link: self.link.clone(), scripts: self.scripts.clone(), ..*self }
    }
}

impl<D: Driver> fmt::Debug for Redis<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("link", &self.link).field("capabilities", &self.capabilities).finish()
    }
}
