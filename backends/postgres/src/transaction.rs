//! PostgreSQL as a transactional store: the handler's writes and the advance in one transaction.

use std::{
    collections::HashSet,
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use highwater::{
    EntryId, Error, ErrorKind, Outcome, Result,
    backend::{Advance, Committed, Settlement, TransactionalCheckpoint},
    clock::random,
};
use sqlx::{
    AssertSqlSafe, PgConnection,
    pool::PoolConnection,
    postgres::{PgRow, PgTransactionManager},
};
use sqlx_core::transaction::TransactionManager;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    Postgres, Shared, codec, error, lane,
    record::{self, Record},
    sql::{self, Guard, Sql},
};

/// How often a statement is sent that finds no record and cannot create one.
const RACES_MAX: u32 = 8;

/// A transaction that is open: what a handler writes to.
///
/// It is a connection, so `&mut *tx` goes where sqlx takes an executor, and `tx.begin()` makes a savepoint. It cannot be
/// committed by the one who holds it: that is done together with the advance. A handler that ends it all the same, by a
/// `COMMIT` or `ROLLBACK` of its own, fails. Dropping it rolls it back.
///
/// ```no_run
/// use highwater::{ConsumerName, EntryId, Epoch, Subscription, backend::*};
///
/// # async fn example(postgres: highwater_postgres::Postgres) -> Result<(), Box<dyn std::error::Error>> {
/// let orders = Subscription::new("orders", "billing")?;
/// let mut tx = postgres.begin().await?;
/// sqlx::query("INSERT INTO invoices (amount) VALUES ($1)").bind(7).execute(&mut *tx).await?;
/// let settlement = Settlement::each(orders, Epoch(0), ConsumerName::unique(), vec![EntryId::new(1, 0)]);
/// match postgres.commit(tx, &settlement).await? {
///     Committed::AlreadySettled(ids) => println!("nothing was written: {ids:?} were settled before"),
///     _ => println!("the invoice is written, and the entry is settled"),
/// }
/// # Ok(())
/// # }
/// ```
pub struct Tx {
    conn: Option<PoolConnection<sqlx::Postgres>>,
    /// Kept by the server as long as the transaction is open: so it is known whether it still is.
    token: String,
    patience: Duration,
    runtime: Handle,
}

impl Tx {
    fn take(&mut self) -> PoolConnection<sqlx::Postgres> {
        self.conn.take().expect("it is there until the transaction ends, which takes `self`")
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.conn.as_ref().expect("it is there until the transaction ends, which takes `self`")
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.conn.as_mut().expect("it is there until the transaction ends, which takes `self`")
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            // Where the runtime has ended, the connection is dropped right here, and needs to know of one.
            let _within = self.runtime.enter();
            self.runtime.spawn(roll_back(conn, self.patience));
        }
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

#[async_trait]
impl TransactionalCheckpoint for Postgres {
    type Tx = Tx;

    async fn begin(&self) -> Result<Tx> {
        if self.lanes().is_closed() {
            return Err(error::closed());
        }
        // In a task of its own: a `BEGIN` that is dropped half-way leaves the connection in a transaction that nobody knows of.
        let shared = Arc::clone(&self.shared);
        let opening = self.shared.runtime.spawn(async move { shared.open().await });
        opening.await.unwrap_or_else(|_| Err(error::closed()))
    }

    async fn settled(&self, tx: &mut Tx, request: &Settlement) -> Result<Vec<EntryId>> {
        let sql = self.sql().settled(request);
        let statement = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut **tx);
        let rows = self.shared.source.answer(statement).await;
        let rows = rows.map_err(|_| error::timed_out(Outcome::NotApplied))?;
        let rows = rows.map_err(|cause| error::translate_in_transaction(&cause))?;
        match rows.first() {
            Some(row) => Settled::already(row, Record::of(row, &request.subscription)?.as_ref(), request),
            None => Ok(Vec::new()),
        }
    }

    async fn commit(&self, tx: Tx, request: &Settlement) -> Result<Committed> {
        let (shared, request) = (Arc::clone(&self.shared), request.clone());
        let ending = self.shared.runtime.spawn(async move { shared.end(tx, &request).await });
        ending.await.unwrap_or_else(|_| Err(error::closed().with_outcome(Outcome::Unknown)))
    }
}

impl Shared {
    async fn open(&self) -> Result<Tx> {
        let token = format!("{:016x}", random());
        // Not whatever the role or the database has for a default: with a higher level, every renewal of a lease would make the
        // transactions that began before it fail.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT set_config('highwater.transaction', '{token}', true)"
        );
        let patience = self.settings.response_timeout;
        let conn = lane::clean(&self.source, Some(&begin)).await?;
        Ok(Tx { conn: Some(conn), token, patience, runtime: self.runtime.clone() })
    }

    async fn end(&self, mut tx: Tx, request: &Settlement) -> Result<Committed> {
        // An error from here on drops the transaction, which rolls it back.
        if PgTransactionManager::get_transaction_depth(&tx) != 1 {
            return Err(Error::new(
                ErrorKind::Handler,
                "the handler left a savepoint open: commit what `begin` returned, or drop it",
            ));
        }
        let guard = Guard::In(tx.token.clone());
        let settling = settle(&self.sql, &mut tx, request, &guard);
        let settled =
            self.source.answer(settling).await.map_err(|_| error::timed_out(Outcome::NotApplied))??;
        if !settled.before.is_empty() {
            return Ok(Committed::AlreadySettled(settled.before));
        }
        let mut conn = tx.take();
        match self.source.answer(PgTransactionManager::commit(&mut conn)).await {
            Ok(Ok(())) => {
                self.pruning.settled(request.position.is_none());
                Ok(Committed::done(settled.watermark))
            }
            Ok(Err(cause)) => {
                lane::discard(conn);
                Err(error::translate_commit(&cause))
            }
            Err(_) => {
                lane::discard(conn);
                Err(error::timed_out(Outcome::Unknown))
            }
        }
    }
}

/// Gives the connection back without the transaction, or closes it.
async fn roll_back(mut conn: PoolConnection<sqlx::Postgres>, patience: Duration) {
    let ending = async {
        while PgTransactionManager::get_transaction_depth(&conn) > 0 {
            PgTransactionManager::rollback(&mut conn).await?;
        }
        Ok::<_, sqlx::Error>(())
    };
    if !matches!(timeout(patience, ending).await, Ok(Ok(()))) {
        lane::discard(conn);
    }
}

/// What became of a settlement in a transaction that is still open.
#[derive(Debug)]
pub(crate) struct Settled {
    /// These were settled before: it must not be committed.
    pub(crate) before: Vec<EntryId>,
    pub(crate) watermark: Option<EntryId>,
    pub(crate) transaction: Option<String>,
}

/// Settles entries in a transaction. It is the last statement before the commit, so that an error of any before it, which
/// PostgreSQL would turn a commit into a rollback for, is noticed here.
pub(crate) async fn settle(
    sql: &Sql,
    conn: &mut PgConnection,
    request: &Settlement,
    guard: &Guard,
) -> Result<Settled> {
    request.validate()?;
    let of = &request.subscription;
    let statement = match request.position.clone() {
        Some(position) => {
            let watermark = Some(position.watermark);
            let advance = Advance::new(of.clone(), request.epoch, position, request.owner.clone());
            let rows = send(conn, &sql.settle_forward(&advance, guard, &request.ids)).await?;
            if let [_, row] = &rows[..] {
                return Ok(Settled { before: Vec::new(), watermark, transaction: record::text(row, 0)? });
            }
            sql.settle_up_to(&advance, guard, &request.ids)
        }
        None => sql.settle_each(request, guard),
    };
    for _ in 0..RACES_MAX {
        let row = record::last(send(conn, &statement).await?)?;
        if let Some(settled) = Settled::read(&row, request)? {
            return Ok(settled);
        }
    }
    Err(error::raced())
}

async fn send(conn: &mut PgConnection, statement: &str) -> Result<Vec<PgRow>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(conn).await;
    rows.map_err(|cause| error::translate_in_transaction(&cause))
}

impl Settled {
    /// Reads the answer; `None` if another one created the record at the same instant.
    fn read(row: &PgRow, request: &Settlement) -> Result<Option<Self>> {
        if !record::truth(row, sql::GUARDED)? {
            return Err(Error::new(
                ErrorKind::Handler,
                "the handler ended the transaction: leave COMMIT and ROLLBACK to the consumer",
            ));
        }
        let record = Record::of(row, &request.subscription)?;
        Record::check(record.as_ref(), request.epoch)?;
        if record.is_none() && !record::truth(row, sql::CREATED)? {
            return Ok(None);
        }
        let before = Self::already(row, record.as_ref(), request)?;
        let watermark = match &request.position {
            Some(position) => record::id(row, sql::WATERMARK)?.or(Some(position.watermark)),
            None => None,
        };
        Ok(Some(Self { before, watermark, transaction: record::text(row, sql::TRANSACTION)? }))
    }

    /// Which entries were settled before: those that the record says, and those that the answer lists.
    fn already(row: &PgRow, record: Option<&Record>, request: &Settlement) -> Result<Vec<EntryId>> {
        let listed = record::text(row, sql::BEFORE)?.unwrap_or_default();
        let listed: HashSet<_> = listed.split(' ').filter_map(codec::unhex).collect();
        let position = record.and_then(Record::position);
        let settles =
            |id: &EntryId| listed.contains(id) || position.is_some_and(|position| position.settles(*id));
        Ok(request.ids.iter().copied().filter(settles).collect())
    }
}
