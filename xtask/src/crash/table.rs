//! The user's table, in the database that has the checkpoint.

use std::{path::Path, sync::Arc};

use highwater::backend::CheckpointBackend;
use highwater_postgres::Postgres;
use highwater_sqlite::Sqlite;
use sqlx::{Connection, Row};

use crate::{Result, cli::Rows, servers, support::postgres::PostgresServer};

/// No constraint forbids an effect that took place twice: it would hide it.
const CREATE: &str = "CREATE TABLE effects (number bigint NOT NULL, id text NOT NULL, run bigint NOT NULL)";
const COUNT: &str = "SELECT count(*), count(DISTINCT number), coalesce(max(number), 0) FROM effects";

/// What the table holds.
#[derive(Debug)]
pub struct Count {
    pub rows: u64,
    pub distinct: u64,
    pub last: u64,
}

#[derive(Debug)]
pub enum Table {
    Postgres(Box<PostgresServer>),
    Sqlite(String),
}

impl Table {
    pub async fn create(rows: Rows, folder: &Path) -> Result<Self> {
        match rows {
            Rows::Postgres => {
                // What was committed must be on disk: the server is killed.
                let server = servers::private_postgres(&["fsync=on"])?;
                let mut connection = sqlx::PgConnection::connect(&server.url()).await?;
                sqlx::query(CREATE).execute(&mut connection).await?;
                Ok(Self::Postgres(Box::new(server)))
            }
            Rows::Sqlite => {
                let path = folder.join("rows.db").display().to_string();
                Sqlite::open(&path).await?;
                let mut connection = sqlx::SqliteConnection::connect(&path).await?;
                sqlx::query(CREATE).execute(&mut connection).await?;
                Ok(Self::Sqlite(path))
            }
        }
    }

    /// A URL, or a path.
    pub fn at(&self) -> String {
        match self {
            Self::Postgres(server) => server.url(),
            Self::Sqlite(path) => path.clone(),
        }
    }

    pub async fn checkpoints(&self) -> Result<Arc<dyn CheckpointBackend>> {
        Ok(match self {
            Self::Postgres(server) => Arc::new(Postgres::connect(&server.url()).await?),
            Self::Sqlite(path) => Arc::new(Sqlite::open(path).await?),
        })
    }

    pub async fn count(&self) -> Result<Count> {
        let number = |value: i64| u64::try_from(value).map_err(|_| "a count below zero");
        let [rows, distinct, last] = match self {
            Self::Postgres(server) => {
                let mut connection = sqlx::PgConnection::connect(&server.url()).await?;
                let row = sqlx::query(COUNT).fetch_one(&mut connection).await?;
                [row.try_get::<i64, _>(0)?, row.try_get(1)?, row.try_get(2)?]
            }
            Self::Sqlite(path) => {
                let mut connection = sqlx::SqliteConnection::connect(path).await?;
                let row = sqlx::query(COUNT).fetch_one(&mut connection).await?;
                [row.try_get::<i64, _>(0)?, row.try_get(1)?, row.try_get(2)?]
            }
        };
        Ok(Count { rows: number(rows)?, distinct: number(distinct)?, last: number(last)? })
    }

    /// Kills the server of the database, and starts it again on what is on its disk.
    pub fn kill_and_restart(&mut self) -> Result {
        match self {
            Self::Postgres(server) => Ok(server.restart()?),
            Self::Sqlite(_) => Err("--kill-store is for --checkpoint postgres".into()),
        }
    }
}
