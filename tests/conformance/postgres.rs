//! PostgreSQL, with a table of effects beside the checkpoints.

use async_trait::async_trait;
use highwater::{EntryId, Error, ErrorKind, Result, conformance::Effects};
use highwater_postgres::{Postgres, Tx};
use sqlx::{Connection, PgConnection};

use crate::support::shared_postgres_url;

pub(super) async fn postgres() -> Postgres {
    let postgres = Postgres::connect(&shared_postgres_url()).await.expect("the server answers");
    postgres.ensure_schema().await.expect("the user may create tables");
    postgres
}

pub(super) struct Rows;

#[async_trait]
impl Effects<Tx> for Rows {
    async fn write(&self, tx: &mut Tx, table: &str, row: EntryId) -> Result<()> {
        let insert =
            sqlx::query("INSERT INTO highwater.effects VALUES ($1, $2)").bind(table).bind(row.to_string());
        insert.execute(&mut **tx).await.map(drop).map_err(handler)
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        let mut conn = PgConnection::connect(&shared_postgres_url()).await.map_err(handler)?;
        let select = sqlx::query_scalar("SELECT entry FROM highwater.effects WHERE name = $1").bind(table);
        let rows: Vec<String> = select.fetch_all(&mut conn).await.map_err(handler)?;
        rows.iter().map(|row| row.parse()).collect()
    }
}

fn handler(cause: sqlx::Error) -> Error {
    Error::new(ErrorKind::Handler, "the effects cannot be written").with_source(cause)
}

pub(super) async fn effects() -> (Postgres, Rows) {
    let postgres = postgres().await;
    let mut conn = PgConnection::connect(&shared_postgres_url()).await.expect("the server answers");
    // Several create it at once, which `IF NOT EXISTS` alone does not make safe.
    let create = "BEGIN; LOCK TABLE highwater.settled IN SHARE ROW EXCLUSIVE MODE; \
                  CREATE TABLE IF NOT EXISTS highwater.effects (name text, entry text); COMMIT";
    sqlx::raw_sql(create).execute(&mut conn).await.expect("the user may create tables");
    (postgres, Rows)
}
