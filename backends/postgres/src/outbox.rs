//! Settling in a transaction of the caller.

use std::time::Duration;

use highwater::{
    EntryId, Error, ErrorKind, Outcome, Result, Subscription, backend::Settlement, clock::Clock,
};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgRow};
use tokio::time::timeout;

use crate::{
    Postgres, codec, error, record,
    sql::Guard,
    transaction::{self, Settled},
};

/// How soon to look again whether a transaction has ended.
const POLL: Duration = Duration::from_millis(10);

/// What became of a settlement in a transaction of the caller.
#[derive(Debug)]
#[must_use = "entries that were settled before must not be written for again: roll back"]
#[non_exhaustive]
pub enum Settling {
    /// They are settled if the transaction commits. Nothing is known of that yet.
    Provisional(Provisional),
    /// These were settled before: roll back. The transaction is as it was.
    AlreadySettled(Vec<EntryId>),
}

/// A settlement that takes place if the transaction it is in commits: only [`confirm`](Self::confirm) knows.
#[derive(Debug)]
#[must_use = "nothing is settled before the transaction is committed, and `confirm` says that it was"]
pub struct Provisional {
    postgres: Postgres,
    subscription: Subscription,
    /// Whether each was settled by itself.
    each: bool,
    transaction: String,
}

impl Postgres {
    /// Settles entries in a transaction that the caller began and will commit.
    ///
    /// Call it last in the transaction: it locks the record until the end, and the server ends the transaction if it then
    /// stands still for longer than the `commit_timeout`. A savepoint inside keeps an error from the transaction.
    ///
    /// ```no_run
    /// use highwater::backend::Settlement;
    /// use highwater_postgres::{Postgres, Settling};
    ///
    /// # async fn example(pool: sqlx::PgPool, postgres: Postgres, settlement: Settlement)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin().await?;
    /// sqlx::query("INSERT INTO invoices (amount) VALUES ($1)").bind(7).execute(&mut *tx).await?;
    /// match postgres.settle_in(&mut tx, &settlement).await? {
    ///     Settling::Provisional(provisional) => {
    ///         // Also after an error: it may have been committed.
    ///         let _ = tx.commit().await;
    ///         provisional.confirm().await?;
    ///     }
    ///     _ => tx.rollback().await?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`commit`](highwater::backend::TransactionalCheckpoint::commit) before its commit, and
    /// [`Invalid`](highwater::ErrorKind::Invalid) if the connection is in no transaction. Nothing took place.
    ///
    /// # Cancel safety
    ///
    /// The entries may be settled in the transaction: roll it back.
    pub async fn settle_in(&self, conn: &mut PgConnection, request: &Settlement) -> Result<Settling> {
        let begun = "SAVEPOINT highwater; SELECT current_setting('statement_timeout')";
        let timeout_before = record::text(&record::last(self.within(conn, begun).await?)?, 0)?;
        let settled =
            timeout(self.patience(), transaction::settle(self.sql(), conn, request, &Guard::Within));
        let settled = settled.await.unwrap_or_else(|_| Err(error::timed_out(Outcome::NotApplied)));
        let end = match &settled {
            Ok(settled) if settled.before.is_empty() => {
                // The caller's statements are not ours to limit.
                let before = codec::text(timeout_before.as_deref().unwrap_or("0"));
                format!("RELEASE SAVEPOINT highwater; SELECT set_config('statement_timeout', {before}, true)")
            }
            _ => "ROLLBACK TO SAVEPOINT highwater; RELEASE SAVEPOINT highwater".into(),
        };
        let ended = self.within(conn, &end).await;
        let Settled { before, transaction, .. } = settled?;
        ended?;
        if !before.is_empty() {
            return Ok(Settling::AlreadySettled(before));
        }
        let transaction = transaction.ok_or_else(|| error::unreadable("the id of a transaction"))?;
        Ok(Settling::Provisional(Provisional {
            postgres: self.clone(),
            subscription: request.subscription.clone(),
            each: request.position.is_none(),
            transaction,
        }))
    }

    async fn within(&self, conn: &mut PgConnection, statements: &str) -> Result<Vec<PgRow>> {
        let done = sqlx::raw_sql(AssertSqlSafe(statements)).fetch_all(conn);
        match timeout(self.patience(), done).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(cause)) if error::is_outside(&cause) => {
                Err(Error::invalid("the connection is in no transaction: begin one, and settle at its end"))
            }
            Ok(Err(cause)) => Err(error::translate_in_transaction(&cause)),
            Err(_) => Err(error::timed_out(Outcome::NotApplied)),
        }
    }
}

impl Provisional {
    /// Asks the server, on another connection, whether the transaction was committed, and waits while it is under way. Ack
    /// the entries after this and not before: a commit that says it succeeded may have rolled back, since an error inside
    /// was ignored, and one that failed may have succeeded, since its reply was lost.
    ///
    /// # Errors
    ///
    /// [`Handler`](highwater::ErrorKind::Handler) if it was rolled back, and
    /// [`Unavailable`](highwater::ErrorKind::Unavailable) with [`Outcome::Unknown`] if it is still open at the end of the
    /// response timeout, or the server cannot be asked: call it again.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    pub async fn confirm(&self) -> Result<()> {
        let clock = Clock::started();
        loop {
            match self.status().await.map_err(|error| error.with_outcome(Outcome::Unknown))?.as_deref() {
                Some("committed") => {
                    self.postgres.pruning().settled(self.each);
                    return Ok(());
                }
                Some("aborted") => {
                    return Err(Error::new(
                        ErrorKind::Handler,
                        "the transaction was rolled back, and nothing took place: look for an error in it that was ignored",
                    ));
                }
                Some(_) if clock.elapsed() < self.postgres.patience() => clock.sleep(POLL).await,
                Some(_) => {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        "the transaction is still open: commit it, then confirm again",
                    )
                    .with_outcome(Outcome::Unknown));
                }
                None => {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        "the server has forgotten the transaction: load the checkpoint to see what was settled",
                    )
                    .with_outcome(Outcome::Unknown));
                }
            }
        }
    }

    async fn status(&self) -> Result<Option<String>> {
        let sql = format!("SELECT pg_xact_status('{}'::xid8)", self.transaction);
        let rows = self.postgres.lanes().read(&self.subscription, sql).await?;
        record::text(&record::last(rows)?, 0)
    }
}
