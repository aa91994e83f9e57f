#![doc = include_str!("../README.md")]

mod attempts;
mod checkpoint;
mod clause;
mod codec;
mod error;
mod forward;
mod lane;
mod outbox;
mod prune;
mod record;
mod schema;
mod settings;
mod silence;
mod sql;
mod transaction;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use highwater::{Error, Result};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::runtime::Handle;

use crate::{
    lane::{Lanes, Source},
    prune::Pruning,
    silence::Silence,
    sql::{Guard, Sql},
};
pub use crate::{
    outbox::{Provisional, Settling},
    settings::Settings,
    transaction::Tx,
};

/// How many connections the pool of [`Postgres::connect`] has at most, besides those that are kept for checkpoints.
const POOL_SPARE: u32 = 8;

/// Checkpoints in a PostgreSQL database.
///
/// Cloning is cheap: clones share the connections. Dropping the last one gives them back. Calls run on the tokio runtime that
/// opened it and end with that runtime.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    /// Whether the pool is nobody else's.
    own_pool: bool,
    settings: Settings,
    sql: Sql,
    runtime: Handle,
    lanes: Lanes,
    pruning: Pruning,
}

impl Postgres {
    /// Opens a pool of its own: `postgres://user:password@host:port/database`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](highwater::ErrorKind::Invalid) if the URL cannot be read or the database does not exist,
    /// [`Denied`](highwater::ErrorKind::Denied) if the user or the password is refused, and
    /// [`Unavailable`](highwater::ErrorKind::Unavailable) if the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, Settings::default()).await
    }

    /// As [`connect`](Self::connect), with settings.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), and [`Invalid`](highwater::ErrorKind::Invalid) for a setting out of its range.
    ///
    /// # Cancel safety
    ///
    /// That of [`connect`](Self::connect).
    pub async fn connect_with(url: &str, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
        // The cause may quote the URL, and the password with it.
        let options = PgConnectOptions::from_str(url).ok().filter(|_| scheme).ok_or_else(|| {
            Error::invalid("the URL cannot be read: use `postgres://user:password@host:port/database`")
        })?;
        let silence = Silence::new();
        let connections = u32::try_from(settings.connections).unwrap_or(u32::MAX).saturating_add(POOL_SPARE);
        let pool =
            PgPoolOptions::new().max_connections(connections).acquire_timeout(settings.response_timeout);
        let pool = silence.guard(pool).connect_lazy_with(options);
        let postgres = Self::new(pool, silence, settings, true)?;
        postgres.lanes().read(&0, "SELECT 1".into()).await?;
        Ok(postgres)
    }

    /// Uses a pool that is there already. It is not asked for a connection before the first call.
    ///
    /// # Errors
    ///
    /// [`Invalid`](highwater::ErrorKind::Invalid) outside of a tokio runtime, or if the pool is too small.
    pub fn from_pool(pool: PgPool) -> Result<Self> {
        Self::from_pool_with(pool, Settings::default())
    }

    /// As [`from_pool`](Self::from_pool), with settings.
    ///
    /// # Errors
    ///
    /// Those of [`from_pool`](Self::from_pool), and [`Invalid`](highwater::ErrorKind::Invalid) for a setting out of its range.
    pub fn from_pool_with(pool: PgPool, settings: Settings) -> Result<Self> {
        settings.validate()?;
        Self::new(pool, Silence::new(), settings, false)
    }

    /// Creates the schema and its tables where they are not, and brings those of an earlier version up to date. Any number of
    /// processes may do so at once, also while consumers are at work: those wait as long as it does.
    ///
    /// A role that may not create tables can call it as well where they are there. To create them by hand instead, run
    /// `migrations/*.sql` of this crate in order, also as [`Postgres::schema_sql`].
    ///
    /// # Errors
    ///
    /// [`Denied`](highwater::ErrorKind::Denied) if the role may not, [`Unavailable`](highwater::ErrorKind::Unavailable) if a
    /// transaction that stays open keeps it from the tables, and those of every method.
    ///
    /// # Cancel safety
    ///
    /// The tables may have been created or changed, all or none.
    pub async fn ensure_schema(&self) -> Result<()> {
        let names = &self.sql().names;
        let rows = self.lanes().read(&0, names.exists()).await?;
        if record::truth(&record::last(rows)?, 0)? {
            return Ok(());
        }
        self.lanes().write(&0, names.create(&self.sql().limits(&Guard::Alone))).await.map(drop)
    }

    /// The statements that create the tables, or bring them up to date, with the names of the settings: for whoever runs
    /// migrations by hand. They may be run again.
    ///
    /// # Errors
    ///
    /// [`Invalid`](highwater::ErrorKind::Invalid) for a setting out of its range.
    ///
    /// ```
    /// use highwater_postgres::{Postgres, Settings};
    ///
    /// let sql = Postgres::schema_sql(&Settings::default().schema("billing"))?;
    /// assert!(sql.contains(r#"CREATE TABLE IF NOT EXISTS "billing"."checkpoint""#));
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn schema_sql(settings: &Settings) -> Result<String> {
        settings.validate()?;
        Ok(schema::Names::new(settings).ddl)
    }

    fn new(pool: PgPool, silence: Silence, settings: Settings, own_pool: bool) -> Result<Self> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(Error::invalid("there is no tokio runtime here: call this inside of one"));
        };
        if pool.options().get_max_connections() as usize <= settings.connections {
            return Err(Error::invalid("the pool is too small: it needs more than `connections`")
                .with("connections", settings.connections)
                .with("max_connections", pool.options().get_max_connections()));
        }
        let source = Source { pool, patience: settings.response_timeout, silence };
        let lanes = Lanes::start(&source, settings.connections);
        let sql = Sql::new(&settings);
        let shared = Shared { source, own_pool, settings, sql, runtime, lanes, pruning: Pruning::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    async fn shut(&self) {
        self.lanes().close().await;
        if self.shared.own_pool {
            self.shared.source.pool.close().await;
        }
    }

    fn sql(&self) -> &Sql {
        &self.shared.sql
    }

    fn lanes(&self) -> &Lanes {
        &self.shared.lanes
    }

    fn patience(&self) -> Duration {
        self.shared.settings.response_timeout
    }

    fn pruning(&self) -> &Pruning {
        &self.shared.pruning
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.shared.source.pool.connect_options();
        f.debug_struct("Postgres")
            .field("host", &options.get_host())
            .field("port", &options.get_port())
            .field("database", &options.get_database())
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
