//! A transactional store with the effects of its transactions, whatever its transactions are.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;

use super::support::{Checkpoints, Stop, Streams, consumer};
use crate::{
    EntryId, Epoch, ErrorKind, Outcome, Position, Result, Subscription,
    backend::{Committed, Settlement, StreamBackend, TransactionalCheckpoint},
};

/// What a case writes in a transaction, and reads when it has been committed: a table of entry ids for each name.
#[async_trait]
pub trait Effects<Tx>: Send + Sync + 'static {
    /// Adds a row to the table of this name, as a part of the transaction. The same row may be added twice.
    ///
    /// # Errors
    ///
    /// Those of the store.
    async fn write(&self, tx: &mut Tx, table: &str, row: EntryId) -> Result<()>;

    /// All rows that were committed to the table of this name, in any order.
    ///
    /// # Errors
    ///
    /// Those of the store.
    async fn rows(&self, table: &str) -> Result<Vec<EntryId>>;
}

/// A transaction of any store.
pub(super) type AnyTx = Box<dyn Any + Send>;

/// A store and its effects, without its types: each case is compiled once.
#[async_trait]
trait AnyStore: Send + Sync {
    async fn begin(&self) -> Result<AnyTx>;
    async fn write(&self, tx: &mut AnyTx, table: &str, row: EntryId) -> Result<()>;
    async fn rows(&self, table: &str) -> Result<Vec<EntryId>>;
    async fn settled(&self, tx: &mut AnyTx, request: &Settlement) -> Result<Vec<EntryId>>;
    async fn commit(&self, tx: AnyTx, request: &Settlement) -> Result<Committed>;
}

struct WithEffects<B, E>(Arc<B>, E);

impl<B: TransactionalCheckpoint, E> WithEffects<B, E> {
    fn tx(tx: &mut AnyTx) -> &mut B::Tx {
        tx.downcast_mut().expect("a transaction comes from this store")
    }
}

#[async_trait]
impl<B: TransactionalCheckpoint, E: Effects<B::Tx>> AnyStore for WithEffects<B, E> {
    async fn begin(&self) -> Result<AnyTx> {
        Ok(Box::new(self.0.begin().await?))
    }

    async fn write(&self, tx: &mut AnyTx, table: &str, row: EntryId) -> Result<()> {
        self.1.write(Self::tx(tx), table, row).await
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        self.1.rows(table).await
    }

    async fn settled(&self, tx: &mut AnyTx, request: &Settlement) -> Result<Vec<EntryId>> {
        self.0.settled(Self::tx(tx), request).await
    }

    async fn commit(&self, tx: AnyTx, request: &Settlement) -> Result<Committed> {
        let tx = tx.downcast().expect("a transaction comes from this store");
        self.0.commit(*tx, request).await
    }
}

/// A transactional store, a table of effects, and a subscription that is the case's own.
#[derive(Clone)]
pub(super) struct Transactions {
    store: Arc<dyn AnyStore>,
    pub(super) checkpoints: Checkpoints,
}

impl Transactions {
    pub(super) fn new<B: TransactionalCheckpoint, E: Effects<B::Tx>>(
        (backend, effects): (B, E),
        case: &str,
    ) -> Self {
        let backend = Arc::new(backend);
        let checkpoints = Checkpoints::new(Arc::<B>::clone(&backend), case);
        Self { store: Arc::new(WithEffects(backend, effects)), checkpoints }
    }

    pub(super) fn of(&self, subscription: Subscription) -> Self {
        Self { checkpoints: self.checkpoints.of(subscription), ..self.clone() }
    }

    /// Each of them by itself.
    pub(super) fn each(&self, epoch: Epoch, ids: &[EntryId]) -> Settlement {
        Settlement::each(self.checkpoints.subscription.clone(), epoch, consumer("owner"), ids.to_vec())
    }

    /// All up to the last of them.
    pub(super) fn up_to(&self, epoch: Epoch, ids: &[EntryId]) -> Settlement {
        let last = ids.last().copied().unwrap_or_default();
        self.each(epoch, ids).up_to(Position::at(last))
    }

    pub(super) async fn begin(&self) -> Result<AnyTx> {
        self.store.begin().await
    }

    pub(super) async fn write(&self, tx: &mut AnyTx, rows: &[EntryId]) -> Result<()> {
        for row in rows {
            self.store.write(tx, self.checkpoints.subscription.stream.as_str(), *row).await?;
        }
        Ok(())
    }

    /// What was committed, in order.
    pub(super) async fn rows(&self) -> Result<Vec<EntryId>> {
        let mut rows = self.store.rows(self.checkpoints.subscription.stream.as_str()).await?;
        rows.sort_unstable();
        Ok(rows)
    }

    /// As a consumer asks before its handler begins.
    pub(super) async fn settled_in(&self, tx: &mut AnyTx, request: &Settlement) -> Result<Vec<EntryId>> {
        self.store.settled(tx, request).await
    }

    pub(super) async fn commit(&self, tx: AnyTx, request: &Settlement) -> Result<Committed> {
        self.store.commit(tx, request).await
    }

    /// Which of them a new transaction finds settled.
    pub(super) async fn settled(&self, request: &Settlement) -> Result<Vec<EntryId>> {
        let mut tx = self.begin().await?;
        self.store.settled(&mut tx, request).await
    }

    /// One transaction with an effect for each entry.
    pub(super) async fn once(&self, request: &Settlement) -> Result<Committed> {
        let mut tx = self.begin().await?;
        self.write(&mut tx, &request.ids).await?;
        self.commit(tx, request).await
    }

    /// As [`once`](Self::once), begun again while the store says that it is not available, as when two of them met.
    pub(super) async fn run(&self, request: &Settlement) -> Result<Committed, Stop> {
        loop {
            match self.once(request).await {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && error.outcome() == Outcome::NotApplied =>
                {
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    return Err(Stop::NotApplicable("the store settles entries only beside their group"));
                }
                result => return Ok(result?),
            }
        }
    }

    /// As [`run`](Self::run), and all of it takes place.
    pub(super) async fn done(&self, request: &Settlement) -> Result<(), Stop> {
        match self.run(request).await? {
            Committed::Done { .. } => Ok(()),
            before => panic!("none of {:?} was settled before: {before:?}", request.ids),
        }
    }

    /// As [`run`](Self::run), and none of it takes place, since these were settled before.
    pub(super) async fn refused(&self, request: &Settlement, before: &[EntryId]) -> Result<(), Stop> {
        let rows = self.rows().await?;
        assert_eq!(self.run(request).await?, Committed::AlreadySettled(before.to_vec()));
        assert_eq!(self.rows().await?, rows, "it had no effect");
        Ok(())
    }
}

/// A transactional store that holds the group as well.
#[derive(Clone)]
pub(super) struct Fused {
    pub(super) transactions: Transactions,
    pub(super) streams: Streams,
}

impl Fused {
    pub(super) fn new<B, E>((backend, effects): (B, E), case: &str) -> Self
    where
        B: TransactionalCheckpoint + StreamBackend,
        E: Effects<B::Tx>,
    {
        let backend = Arc::new(backend);
        let streams = Streams::new(Arc::<B>::clone(&backend), case);
        let checkpoints = Checkpoints {
            backend: Arc::<B>::clone(&backend),
            subscription: streams.subscription.clone(),
            clock: streams.clock.clone(),
        };
        let transactions = Transactions { store: Arc::new(WithEffects(backend, effects)), checkpoints };
        Self { transactions, streams }
    }

    pub(super) fn fused(&self, epoch: Epoch, ids: &[EntryId]) -> Settlement {
        self.transactions.each(epoch, ids).fused(true)
    }

    /// Settles them; returns where the checkpoint then stands.
    pub(super) async fn settle(&self, ids: &[EntryId]) -> Result<EntryId, Stop> {
        match self.transactions.run(&self.fused(Epoch(0), ids)).await? {
            Committed::Done { watermark: Some(watermark) } => Ok(watermark),
            committed => panic!("the group is there, and none of {ids:?} is settled: {committed:?}"),
        }
    }

    /// Appends `1-0` to `count-0` and delivers them all to `a`.
    pub(super) async fn deliver(&self, count: u64) -> Result<Vec<EntryId>> {
        self.streams.append_at(1..=count).await?;
        self.streams.ensure_at(EntryId::ZERO).await?;
        self.streams.read_group("a", 1000).await
    }
}
