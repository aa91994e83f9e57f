//! Transactions of handlers: what they write and that their entries are settled, in one commit.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use highwater::{
    EntryId, Error, Result, Retry,
    backend::{Advance, Committed, Settlement, TransactionalCheckpoint},
};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::OwnedMutexGuard;

use crate::{
    Sqlite, codec,
    db::Db,
    error::{self, Fail},
    pending::ack,
    record::Record,
    schema::Options,
    transaction::{self, Operation, begin, execute},
};

/// A transaction on the file of a [`Sqlite`]: what a handler writes, in tables of its own beside those of the library.
///
/// SQLite lets one transaction at a time write to a file. This one takes its place at the first [`conn`](Self::conn) and
/// keeps it until it is committed or dropped: meanwhile nothing else is written to the file, appends, heartbeats and leases
/// included. So do what takes long before it, and keep it much shorter than a consumer's time to live. The transactions
/// and requests of one `Sqlite` take turns in the order in which they came; those of other processes try again until the
/// busy timeout is over. Do not wait for a write through the `Sqlite` while the transaction is open: it waits for its end.
///
/// It reads what nobody can change before it commits. Its connection enforces foreign keys, and refuses a `COMMIT` by anybody
/// but the library: what would be committed without it is rolled back. To divide it, use `SAVEPOINT`.
///
/// ```
/// use highwater::{ConsumerName, EntryId, Epoch, Subscription, backend::*};
/// use highwater_sqlite::Sqlite;
/// use sqlx::{Connection, SqliteConnection};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("orders.db");
/// let sqlite = Sqlite::open(&path).await?;
/// let mut mine = SqliteConnection::connect(path.to_str().unwrap()).await?;
/// sqlx::raw_sql("CREATE TABLE paid (entry TEXT)").execute(&mut mine).await?;
///
/// let (orders, id) = (Subscription::new("orders", "billing")?, EntryId::new(1, 0));
/// let settlement = Settlement::each(orders, Epoch(0), ConsumerName::unique(), vec![id]);
/// for _ in 0..2 {
///     let mut tx = sqlite.begin().await?;
///     let insert = sqlx::query("INSERT INTO paid VALUES (?)").bind(id.to_string());
///     insert.execute(tx.conn().await?).await?;
///     sqlite.commit(tx, &settlement).await?;
/// }
/// let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM paid").fetch_one(&mut mine).await?;
/// assert_eq!(rows, 1, "an entry is settled once");
/// # Ok(())
/// # }
/// ```
pub struct Tx {
    db: Arc<Db>,
    open: Option<Open>,
}

impl Tx {
    /// The connection of the transaction, which is begun by the first call.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](highwater::ErrorKind::Unavailable) if the file was not free within the busy timeout, or cannot be
    /// written: repeat it at once. [`Closed`](highwater::ErrorKind::Closed) if the `Sqlite` was closed.
    ///
    /// # Cancel safety
    ///
    /// Safe: a transaction that nobody got is rolled back.
    pub async fn conn(&mut self) -> Result<&mut SqliteConnection> {
        let open = match self.open.take() {
            Some(open) => open,
            None => apart(self.db.clone().open_transaction()).await?,
        };
        Ok(&mut self.open.insert(open).session.conn)
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("begun", &self.open.is_some()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TransactionalCheckpoint for Sqlite {
    type Tx = Tx;

    async fn begin(&self) -> Result<Tx> {
        self.db.is_open()?;
        Ok(Tx { db: self.db.clone(), open: None })
    }

    async fn settled(&self, _: &mut Tx, request: &Settlement) -> Result<Vec<EntryId>> {
        // Beside the transaction, which shall not hold up others for a question.
        self.db.read(WhichSettled(request.clone())).await
    }

    async fn commit(&self, tx: Tx, request: &Settlement) -> Result<Committed> {
        if !Arc::ptr_eq(&tx.db, &self.db) {
            return Err(Error::invalid(
                "the transaction is of another database: commit it where it was begun",
            ));
        }
        let (Tx { db, open }, request) = (tx, request.clone());
        apart(async move {
            let open = match open {
                Some(open) => open,
                None => db.open_transaction().await?,
            };
            open.commit(&request).await
        })
        .await
    }
}

/// In a task of its own, since a caller that goes away must not leave it half done.
async fn apart<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(error::lost_reply()))
}

/// A connection for transactions of handlers.
#[derive(Debug)]
pub(crate) struct Session {
    conn: SqliteConnection,
    may_commit: Arc<AtomicBool>,
}

impl Session {
    async fn connect(options: &Options) -> Result<Self, sqlx::Error> {
        let mut conn = options.clone().foreign_keys(true).connect().await?;
        let may_commit = Arc::new(AtomicBool::new(false));
        // SQLite ends a transaction by itself after some errors. Without this, what a handler that does not care writes
        // then would be committed, statement by statement.
        let allowed = may_commit.clone();
        conn.lock_handle().await?.set_commit_hook(move || allowed.load(Ordering::Acquire));
        Ok(Self { conn, may_commit })
    }
}

/// A transaction that is open. The session goes back when it has ended; dropped before, its connection is closed, which rolls
/// back.
#[derive(Debug)]
pub(crate) struct Open {
    session: Session,
    now: u64,
    // Behind the session, so that the connection is closed when the next one begins.
    turn: OwnedMutexGuard<Option<Session>>,
}

impl Open {
    pub(crate) async fn begin(
        mut turn: OwnedMutexGuard<Option<Session>>,
        options: &Options,
    ) -> Result<Self, sqlx::Error> {
        let mut session = match turn.take() {
            Some(session) => session,
            None => Session::connect(options).await?,
        };
        let now = begin(&mut session.conn).await?.now;
        Ok(Self { session, now, turn })
    }

    async fn commit(mut self, request: &Settlement) -> Result<Committed> {
        let mut tx = transaction::Tx::new(&mut self.session.conn, self.now);
        match request.run(&mut tx).await {
            Ok(done @ Committed::Done { .. }) => {
                self.session.may_commit.store(true, Ordering::Release);
                let committed = execute(&mut self.session.conn, "COMMIT").await;
                self.session.may_commit.store(false, Ordering::Release);
                match committed {
                    Ok(()) => {
                        *self.turn = Some(self.session);
                        Ok(done)
                    }
                    Err(cause) => Err(error::translate_commit(&cause, self.roll_back().await)),
                }
            }
            Ok(settled_before) => {
                self.roll_back().await;
                Ok(settled_before)
            }
            Err(fail) => {
                self.roll_back().await;
                Err(fail.into())
            }
        }
    }

    /// Returns whether that is certain. If not, the connection is closed.
    async fn roll_back(mut self) -> bool {
        let rolled_back = execute(&mut self.session.conn, "ROLLBACK").await.is_ok();
        if rolled_back {
            *self.turn = Some(self.session);
        }
        rolled_back
    }
}

/// The error of a transaction that could not begin. It waited already, so there is no reason to wait before the next try.
pub(crate) fn not_begun(cause: &sqlx::Error) -> Error {
    let error = error::translate(cause);
    if error::is_busy(cause) { error.with_retry(Retry::Now) } else { error }
}

/// Asks which of the entries are settled.
pub(crate) struct WhichSettled(pub(crate) Settlement);

#[async_trait]
impl Operation for WhichSettled {
    type Out = Vec<EntryId>;

    async fn run(&self, tx: &mut transaction::Tx<'_>) -> Result<Vec<EntryId>, Fail> {
        which_settled(tx, &self.0).await.map(|(_, settled)| settled)
    }
}

#[async_trait]
impl Operation for Settlement {
    type Out = Committed;

    async fn run(&self, tx: &mut transaction::Tx<'_>) -> Result<Committed, Fail> {
        self.validate()?;
        let (record, before) = which_settled(tx, self).await?;
        record.check(self.epoch)?;
        if !before.is_empty() {
            return Ok(Committed::AlreadySettled(before));
        }
        let position = match &self.position {
            Some(position) => Some(position.clone()),
            None => {
                settle_each(tx, self).await?;
                if self.fused { ack(tx, &self.subscription, &self.ids, true).await?.position } else { None }
            }
        };
        let Some(position) = position else { return Ok(Committed::done(None)) };
        let advance = Advance::new(self.subscription.clone(), self.epoch, position, self.owner.clone());
        Ok(Committed::done(Some(record.advance(tx, &advance).await?.watermark)))
    }
}

/// Which of the entries are settled, and the record that says so.
async fn which_settled(
    tx: &mut transaction::Tx<'_>,
    request: &Settlement,
) -> Result<(Record, Vec<EntryId>), Fail> {
    // Before the record: outside of a transaction, an advance in between can move them there, never back.
    let rows = settled_each(tx, request).await?;
    let record = Record::load(tx, &request.subscription).await?;
    let is_settled = |id: EntryId| record.settles(id) || rows.binary_search(&codec::stored(id)).is_ok();
    let settled = request.ids.iter().copied().filter(|&id| is_settled(id)).collect();
    Ok((record, settled))
}

/// Which of the entries were settled each by itself, in order.
async fn settled_each(
    tx: &mut transaction::Tx<'_>,
    request: &Settlement,
) -> Result<Vec<(i64, i64)>, sqlx::Error> {
    let Settlement { subscription, ids, .. } = request;
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(Vec::new()) };
    let (first, last) = (codec::stored(*first), codec::stored(*last));
    // Most often there is none between the first and the last, which is one look-up and not one for each.
    let any: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM highwater_settled WHERE stream = ? AND grp = ? \
         AND (ms, seq) >= (?, ?) AND (ms, seq) <= (?, ?))",
    )
    .bind(subscription.stream.as_str())
    .bind(subscription.group.as_str())
    .bind(first.0)
    .bind(first.1)
    .bind(last.0)
    .bind(last.1)
    .fetch_one(&mut *tx.conn)
    .await?;
    if !any {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "SELECT ms, seq FROM highwater_settled WHERE stream = ? AND grp = ? \
         AND (ms, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?)) ORDER BY ms, seq",
    )
    .bind(subscription.stream.as_str())
    .bind(subscription.group.as_str())
    .bind(codec::json(ids))
    .fetch_all(&mut *tx.conn)
    .await
}

async fn settle_each(tx: &mut transaction::Tx<'_>, request: &Settlement) -> Result<(), Fail> {
    sqlx::query(
        "INSERT OR IGNORE INTO highwater_settled (stream, grp, ms, seq) \
         SELECT ?, ?, value ->> 0, value ->> 1 FROM json_each(?)",
    )
    .bind(request.subscription.stream.as_str())
    .bind(request.subscription.group.as_str())
    .bind(codec::json(&request.ids))
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}
