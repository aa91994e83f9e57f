//! A database for each test, and short ways to say what the tests say often.

use std::{fmt::Debug, net::SocketAddr, str::FromStr, time::Duration};

use highwater::{ConsumerName, EntryId, Epoch, Error, ErrorKind, Position, Subscription, backend::*};
use highwater_postgres::{Postgres, Settings};
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::support::fresh_postgres_url;

pub(crate) const LONG: Duration = Duration::from_secs(600);

pub(crate) struct Store {
    pub(crate) url: String,
    /// What the user of the library has, beside it.
    pub(crate) pool: PgPool,
    pub(crate) postgres: Postgres,
    pub(crate) orders: Subscription,
}

impl Store {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    /// A fresh database with the tables, and one of the user's: `effects (entry text)`.
    pub(crate) async fn with(settings: Settings) -> Self {
        let url = fresh_postgres_url().await;
        let pool = pool(&url, 8);
        let postgres = Postgres::from_pool_with(pool.clone(), settings).unwrap();
        postgres.ensure_schema().await.unwrap();
        sqlx::raw_sql("CREATE TABLE effects (entry text)").execute(&pool).await.unwrap();
        Self { url, pool, postgres, orders: orders() }
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::from_str(&self.url).unwrap()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        let options = self.options();
        SocketAddr::from_str(&format!("{}:{}", options.get_host(), options.get_port())).unwrap()
    }

    /// The same database by way of another address.
    pub(crate) fn url_at(&self, addr: SocketAddr) -> String {
        let options = self.options();
        format!("postgres://{}@{addr}/{}", options.get_username(), options.get_database().unwrap())
    }

    /// As another process would.
    pub(crate) async fn another(&self) -> Postgres {
        Postgres::connect(&self.url).await.unwrap()
    }

    /// What one statement says, on a connection of its own: what is not committed is not seen.
    pub(crate) async fn sql(&self, statement: &str) -> String {
        use sqlx::{ConnectOptions, Connection, Row};
        let mut conn = self.options().connect().await.unwrap();
        let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        let rows = rows.iter().map(|row| {
            let columns =
                (0..row.len()).map(|i| row.get_unchecked::<Option<String>, _>(i).unwrap_or_default());
            columns.collect::<Vec<_>>().join("|")
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn effects(&self) -> String {
        self.sql("SELECT coalesce(string_agg(entry, ' ' ORDER BY entry), '') FROM effects").await
    }

    pub(crate) async fn acquire(&self, owner: &str) -> Epoch {
        let request = Acquire::new(self.orders.clone(), name(owner), LONG);
        match self.postgres.acquire(&request).await.unwrap() {
            Acquired::Owned(grant) => grant.epoch,
            held => panic!("{held:?}"),
        }
    }

    pub(crate) fn advance(&self, epoch: u64, ms: u64) -> Advance {
        Advance::new(self.orders.clone(), Epoch(epoch), Position::at(id(ms)), name("me"))
    }

    pub(crate) async fn position(&self) -> Option<Position> {
        self.postgres.load(&self.orders).await.unwrap().map(|checkpoint| checkpoint.position)
    }

    pub(crate) async fn watermark(&self) -> Option<EntryId> {
        self.position().await.map(|position| position.watermark)
    }

    pub(crate) fn each(&self, epoch: u64, ids: impl IntoIterator<Item = u64>) -> Settlement {
        each(&self.orders, epoch, ids)
    }

    pub(crate) fn up_to(&self, epoch: Epoch, from: u64, to: u64) -> Settlement {
        self.each(epoch.0, from..=to).up_to(Position::at(id(to)))
    }

    /// One effect for each entry, and the settlement, in one transaction.
    pub(crate) async fn handle(&self, settlement: &Settlement) -> Result<Committed, Error> {
        handle(&self.postgres, settlement).await
    }
}

pub(crate) async fn handle(postgres: &Postgres, settlement: &Settlement) -> Result<Committed, Error> {
    let mut tx = postgres.begin().await?;
    for id in &settlement.ids {
        let effect = sqlx::query("INSERT INTO effects VALUES ($1)").bind(id.ms.to_string());
        let effect = effect.persistent(false).execute(&mut *tx).await;
        effect.map_err(|cause| Error::new(ErrorKind::Handler, cause.to_string()))?;
    }
    postgres.commit(tx, settlement).await
}

pub(crate) fn pool(url: &str, size: u32) -> PgPool {
    let options = PgPoolOptions::new().max_connections(size).acquire_timeout(Duration::from_secs(20));
    options.connect_lazy(url).unwrap()
}

pub(crate) fn orders() -> Subscription {
    Subscription::new("orders", "billing").unwrap()
}

pub(crate) fn each(of: &Subscription, epoch: u64, ids: impl IntoIterator<Item = u64>) -> Settlement {
    Settlement::each(of.clone(), Epoch(epoch), name("me"), ids.into_iter().map(id).collect())
}

pub(crate) fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

pub(crate) fn name(name: &str) -> ConsumerName {
    ConsumerName::new(name).unwrap()
}

#[track_caller]
pub(crate) fn kind<T: Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

pub(crate) fn ids(ms: impl IntoIterator<Item = u64>) -> Vec<EntryId> {
    ms.into_iter().map(id).collect()
}
