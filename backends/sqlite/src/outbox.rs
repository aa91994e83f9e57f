//! Settling in a transaction that the caller owns.

use std::{fmt, sync::Arc};

use highwater::{
    EntryId, Error, ErrorKind, Result, Retry,
    backend::{Committed, Settlement},
};
use sqlx::SqliteConnection;

use crate::{
    Sqlite,
    db::Db,
    effects::WhichSettled,
    error,
    transaction::{Operation, Tx, clock, execute},
};

impl Sqlite {
    /// Settles entries in the caller's own transaction on the same file, as
    /// [`commit`](highwater::backend::TransactionalCheckpoint::commit) does in one of the library's.
    ///
    /// It takes place with the caller's commit, and [`Provisional::confirm`] tells whether it did. After an error, or where
    /// entries were settled before, roll back. Begin with `BEGIN IMMEDIATE`: a transaction that has read before others wrote
    /// cannot write.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](highwater::backend::TransactionalCheckpoint::commit), and
    /// [`Invalid`](highwater::ErrorKind::Invalid) if the connection is not in a transaction.
    ///
    /// # Cancel safety
    ///
    /// The transaction may hold a part of it: roll it back.
    ///
    /// ```
    /// use highwater::{ConsumerName, EntryId, Epoch, Subscription, backend::Settlement};
    /// use highwater_sqlite::{Settling, Sqlite};
    /// use sqlx::{Connection, SqliteConnection};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("orders.db");
    /// let sqlite = Sqlite::open(&path).await?;
    /// let mut mine = SqliteConnection::connect(path.to_str().unwrap()).await?;
    /// sqlx::raw_sql("CREATE TABLE paid (entry TEXT PRIMARY KEY)").execute(&mut mine).await?;
    ///
    /// let (orders, id) = (Subscription::new("orders", "billing")?, EntryId::new(1, 0));
    /// let settlement = Settlement::each(orders, Epoch(0), ConsumerName::unique(), vec![id]);
    /// let mut tx = mine.begin_with("BEGIN IMMEDIATE").await?;
    /// sqlx::query("INSERT INTO paid VALUES (?)").bind(id.to_string()).execute(&mut *tx).await?;
    /// match sqlite.settle_in(&mut tx, &settlement).await? {
    ///     Settling::Provisional(provisional) => {
    ///         assert!(provisional.confirm().await.is_err(), "nothing took place yet");
    ///         tx.commit().await?;
    ///         provisional.confirm().await?;
    ///     }
    ///     Settling::AlreadySettled(_) => tx.rollback().await?,
    ///     _ => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn settle_in(&self, conn: &mut SqliteConnection, request: &Settlement) -> Result<Settling> {
        self.db.is_open()?;
        // SQLite refuses it within a transaction, which stays as it is.
        if execute(conn, "BEGIN").await.is_ok() {
            execute(conn, "ROLLBACK").await.map_err(|cause| error::translate(&cause))?;
            return Err(Error::invalid("the connection is not in a transaction: begin one first"));
        }
        // What it cannot write now, it never can: others wrote since it has read.
        let begin_again = |error: Error| match error.kind() {
            ErrorKind::Unavailable => error.with_retry(Retry::Never),
            _ => error,
        };
        let now = clock(conn).await.map_err(|cause| error::translate(&cause))?;
        Ok(match request.run(&mut Tx::new(conn, now)).await.map_err(Error::from).map_err(begin_again)? {
            Committed::AlreadySettled(ids) => Settling::AlreadySettled(ids),
            _ => Settling::Provisional(Provisional { db: self.db.clone(), request: request.clone() }),
        })
    }
}

/// What [`settle_in`](Sqlite::settle_in) came to.
#[must_use = "nothing is settled yet"]
#[derive(Debug)]
#[non_exhaustive]
pub enum Settling {
    /// The entries are settled when the caller's transaction is committed.
    Provisional(Provisional),
    /// None of them is, since these were settled before. Roll back.
    AlreadySettled(Vec<EntryId>),
}

/// Entries that are settled once the caller's transaction is committed. They may be acked when it is confirmed.
#[must_use = "nothing is settled before the transaction is committed and this is confirmed"]
pub struct Provisional {
    db: Arc<Db>,
    request: Settlement,
}

impl Provisional {
    /// Whether the entries are settled, as others see it: after a commit, and after one whose outcome is unknown.
    ///
    /// # Errors
    ///
    /// [`Handler`](ErrorKind::Handler) if they are not: the transaction was rolled back, or is still open.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    pub async fn confirm(&self) -> Result<()> {
        let settled = self.db.read(WhichSettled(self.request.clone())).await?;
        if settled == self.request.ids {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Handler, "the transaction was not committed: do all of it again")
            .with("stream", &self.request.subscription.stream)
            .with("group", &self.request.subscription.group))
    }
}

impl fmt::Debug for Provisional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisional").field("request", &self.request).finish_non_exhaustive()
    }
}
