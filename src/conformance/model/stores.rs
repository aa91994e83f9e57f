//! The stores of a combination, and what a consumer needs of them, whatever their types.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::actor::Launch;
use crate::{
    Consumer, EntryId, Report, Result,
    backend::{AtomicSettle, CheckpointBackend, StreamBackend, TransactionalCheckpoint},
    conformance::Effects,
    layer::Layer,
};

/// The stores of a combination.
#[derive(Debug, Clone)]
pub struct Stores {
    pub(super) stream: Arc<dyn StreamBackend>,
    pub(super) checkpoints: Arc<dyn CheckpointBackend>,
    pub(super) fused: Option<Arc<dyn AtomicSettle>>,
    pub(super) transactional: Option<Arc<dyn Transactional>>,
}

impl Stores {
    /// Two stores: ack, then advance.
    pub fn two(stream: impl StreamBackend, checkpoints: impl CheckpointBackend) -> Self {
        let (stream, checkpoints) = (Arc::new(stream), Arc::new(checkpoints));
        Self { stream, checkpoints, fused: None, transactional: None }
    }

    /// One store that is both. Sequences settle in one step, or in two.
    pub fn one(backend: impl AtomicSettle) -> Self {
        let backend: Arc<dyn AtomicSettle> = Arc::new(backend);
        Self {
            stream: Arc::<dyn AtomicSettle>::clone(&backend),
            checkpoints: Arc::<dyn AtomicSettle>::clone(&backend),
            fused: Some(backend),
            transactional: None,
        }
    }

    /// The same stream, with the checkpoint in another store: ack, then advance.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: impl CheckpointBackend) -> Self {
        Self { checkpoints: Arc::new(checkpoints), fused: None, transactional: None, ..self }
    }

    /// The checkpoint store is transactional. Some sequences handle entries in transactions of it.
    #[must_use]
    pub fn transactional<C, E>(self, checkpoints: C, effects: E) -> Self
    where
        C: TransactionalCheckpoint,
        E: Effects<C::Tx>,
    {
        let store = Apart { checkpoints: Arc::new(checkpoints), effects: Arc::new(effects) };
        Self { transactional: Some(Arc::new(store)), ..self }
    }

    /// The store that is both is transactional, and acks in the same step.
    #[must_use]
    pub fn fused_transactional<B, E>(self, backend: B, effects: E) -> Self
    where
        B: AtomicSettle + TransactionalCheckpoint,
        E: Effects<B::Tx>,
    {
        let store = Fused { backend: Arc::new(backend), effects: Arc::new(effects) };
        Self { transactional: Some(Arc::new(store)), ..self }
    }
}

/// A transactional store with its effects, without its types.
#[async_trait]
pub(super) trait Transactional: fmt::Debug + Send + Sync {
    fn spawn(&self, launch: Launch) -> JoinHandle<Result<Report>>;
    async fn rows(&self, table: &str) -> Result<Vec<EntryId>>;
}

struct Apart<C, E> {
    checkpoints: Arc<C>,
    effects: Arc<E>,
}

impl<C: fmt::Debug, E> fmt::Debug for Apart<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checkpoints.fmt(f)
    }
}

#[async_trait]
impl<C: TransactionalCheckpoint, E: Effects<C::Tx>> Transactional for Apart<C, E> {
    fn spawn(&self, launch: Launch) -> JoinHandle<Result<Report>> {
        let stream = launch.stream.clone().wrap(Arc::clone(&launch.stores.stream));
        let checkpoints = launch.checkpoints.clone().wrap(Arc::clone(&self.checkpoints));
        let builder = Consumer::builder(launch.subscription.clone(), stream, checkpoints);
        launch.spawn_transactional(builder, Arc::clone(&self.effects))
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        self.effects.rows(table).await
    }
}

struct Fused<B, E> {
    backend: Arc<B>,
    effects: Arc<E>,
}

impl<B: fmt::Debug, E> fmt::Debug for Fused<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}

#[async_trait]
impl<B, E> Transactional for Fused<B, E>
where
    B: AtomicSettle + TransactionalCheckpoint,
    E: Effects<B::Tx>,
{
    fn spawn(&self, launch: Launch) -> JoinHandle<Result<Report>> {
        let backend = launch.stream.clone().wrap(Arc::clone(&self.backend));
        let builder = Consumer::fused(launch.subscription.clone(), backend);
        launch.spawn_transactional(builder, Arc::clone(&self.effects))
    }

    async fn rows(&self, table: &str) -> Result<Vec<EntryId>> {
        self.effects.rows(table).await
    }
}
