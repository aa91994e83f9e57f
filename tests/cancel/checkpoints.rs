//! The methods of a checkpoint store, each dropped at every await.

use std::time::Duration;

use highwater::{
    Attempts, ConsumerName, EntryId, Epoch, Position, Subscription,
    backend::{
        Acquire, Acquired, Advance, Append, AtomicSettle, CheckpointBackend, EnsureGroup, LoadAttempts,
        NewEntry, NoteAttempts, ReadGroup, ReadPending, Release, Renew, ResetCheckpoint, Settle,
    },
    layer::Operation,
};
use highwater_postgres::Postgres;

use super::{Cut, at_every_await, fred, memory, redis, sqlite};
use crate::support::{shared_postgres_url, unique};

const TTL: Duration = Duration::from_secs(60);

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::Load,
    Operation::List,
    Operation::Acquire,
    Operation::Renew,
    Operation::Release,
    Operation::Advance,
    Operation::Reset,
    Operation::Attempts,
    Operation::NoteAttempts,
];

fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

/// A subscription whose checkpoint stands at 5, and which `me` owns.
struct Place<'a, C> {
    store: &'a C,
    subscription: Subscription,
    me: ConsumerName,
    epoch: Epoch,
}

impl<'a, C: CheckpointBackend> Place<'a, C> {
    async fn new(store: &'a C) -> Self {
        let subscription = Subscription::new(unique("cancel"), "group").unwrap();
        let me = ConsumerName::new("me").unwrap();
        let mut place = Self { store, subscription, me: me.clone(), epoch: Epoch(0) };
        place.epoch = place.acquire(&me).await.expect("nobody owns it");
        assert!(store.advance(&place.advance(5)).await.unwrap().moved);
        place
    }

    fn request(&self, owner: &ConsumerName) -> Acquire {
        Acquire::new(self.subscription.clone(), owner.clone(), TTL)
    }

    /// Takes the subscription; `None` if another one has it.
    async fn acquire(&self, owner: &ConsumerName) -> Option<Epoch> {
        match self.store.acquire(&self.request(owner)).await.unwrap() {
            Acquired::Owned(grant) => Some(grant.epoch),
            _ => None,
        }
    }

    fn advance(&self, ms: u64) -> Advance {
        Advance::new(self.subscription.clone(), self.epoch, Position::at(id(ms)), self.me.clone())
    }

    async fn watermark(&self) -> u64 {
        self.store.load(&self.subscription).await.unwrap().expect("it was advanced").position.watermark.ms
    }
}

/// Drops the call of this operation, and holds what is there against what the trait says. `false` if it is not one of a store.
async fn round(operation: Operation, store: &impl CheckpointBackend, cut: &Cut) -> bool {
    let mut place = Place::new(store).await;
    let subscription = place.subscription.clone();
    let other = ConsumerName::new("other").unwrap();
    match operation {
        Operation::Load => {
            cut.call(store.load(&subscription)).await.map(Result::unwrap);
        }
        Operation::List => {
            cut.call(store.list(&subscription.stream)).await.map(Result::unwrap);
            assert_eq!(store.list(&subscription.stream).await.unwrap().len(), 1);
        }
        Operation::Acquire => {
            let request = place.request(&place.me);
            cut.call(store.acquire(&request)).await.map(Result::unwrap);
            let before = place.epoch;
            place.epoch = place.acquire(&place.me).await.expect("it is its own");
            assert!(place.epoch > before, "G4: {} after {before}", place.epoch);
        }
        Operation::Renew => {
            let renew = Renew::new(subscription, place.epoch, TTL);
            cut.call(store.renew(&renew)).await.map(Result::unwrap);
            store.renew(&renew).await.unwrap();
            assert_eq!(place.acquire(&other).await, None, "the lease stands");
        }
        Operation::Release => {
            let release = Release::new(subscription, place.epoch);
            cut.call(store.release(&release)).await.map(Result::unwrap);
            store.release(&release).await.unwrap();
            place.epoch = place.acquire(&other).await.expect("it is free");
        }
        Operation::Advance => {
            cut.call(store.advance(&place.advance(8))).await.map(Result::unwrap);
            assert!([5, 8].contains(&place.watermark().await));
            assert_eq!(store.advance(&place.advance(8)).await.unwrap().watermark, id(8));
        }
        Operation::Reset => {
            let reset = ResetCheckpoint::new(subscription, Position::at(id(2))).force(true);
            cut.call(store.reset(&reset)).await.map(Result::unwrap);
            assert!([2, 5].contains(&place.watermark().await));
            place.epoch = store.reset(&reset).await.unwrap();
            assert_eq!(place.watermark().await, 2);
        }
        Operation::Attempts => {
            let all = LoadAttempts::all(subscription);
            cut.call(store.attempts(&all)).await.map(Result::unwrap);
            assert_eq!(store.attempts(&all).await.unwrap(), []);
        }
        Operation::NoteAttempts => {
            let mut attempts = Attempts::new(id(6));
            attempts.failures = 2;
            let note =
                NoteAttempts::new(subscription.clone(), place.epoch, vec![attempts.clone()], Vec::new());
            cut.call(store.note_attempts(&note)).await.map(Result::unwrap);
            let all = LoadAttempts::all(subscription);
            assert!(
                store.attempts(&all).await.unwrap().iter().all(|noted| *noted == attempts),
                "all or nothing"
            );
            store.note_attempts(&note).await.unwrap();
            assert_eq!(store.attempts(&all).await.unwrap(), [attempts]);
        }
        _ => return false,
    }
    // Nothing that came before is in the way.
    let before = place.watermark().await;
    assert!(store.advance(&place.advance(9)).await.unwrap().moved, "from {before}");
    assert_eq!(place.watermark().await, 9);
    true
}

async fn all(store: &impl CheckpointBackend) {
    for &operation in OPERATIONS {
        let awaits = at_every_await(operation.name(), async |cut| {
            assert!(round(operation, store, cut).await, "{operation} has no case");
        });
        assert!(awaits.await > 0, "{operation} never waits, so nothing was dropped");
    }
}

/// The step that acks and advances at once.
async fn settles<B: AtomicSettle>(backend: &B) {
    let awaits = at_every_await("settle", async |cut| {
        let mut place = Place::new(backend).await;
        let (subscription, me) = (place.subscription.clone(), place.me.clone());
        place.epoch = backend
            .reset(&ResetCheckpoint::new(subscription.clone(), Position::default()).force(true))
            .await
            .unwrap();
        let entries =
            (1..=3).map(|ms| NewEntry::new([("n", "1")].into_iter().collect()).with_id(id(ms))).collect();
        backend.append(&Append::new(subscription.stream.clone(), entries)).await.unwrap();
        backend.ensure_group(&EnsureGroup::new(subscription.clone(), &Position::default())).await.unwrap();
        let read = ReadGroup::new(subscription.clone(), me.clone(), 10);
        assert_eq!(backend.read_group(&read).await.unwrap().len(), 3);

        let settle = Settle::new(subscription.clone(), vec![id(1), id(2)], place.epoch, me.clone());
        cut.call(backend.settle(&settle)).await.map(Result::unwrap);
        let pending = ReadPending::new(subscription, me, EntryId::ZERO, 10);
        let pending = backend.read_pending(&pending).await.unwrap().len();
        let watermark = place.watermark().await;
        assert!([(3, 0), (1, 2)].contains(&(pending, watermark)), "{pending} pending at {watermark}");
        backend.settle(&settle).await.unwrap();
        assert_eq!(place.watermark().await, 2);
    });
    assert!(awaits.await > 0, "nothing was dropped");
}

#[tokio::test]
async fn g14_each_method_of_a_checkpoint_store_in_memory() {
    let memory = memory();
    all(&memory).await;
    settles(&memory).await;
}

#[tokio::test]
async fn g14_each_method_of_a_checkpoint_store_in_redis() {
    let redis = redis().await;
    all(&redis).await;
    settles(&redis).await;
}

#[tokio::test]
async fn g14_each_method_of_a_checkpoint_store_in_redis_by_fred() {
    let fred = fred().await;
    all(&fred).await;
    settles(&fred).await;
}

#[tokio::test]
async fn g14_each_method_of_a_checkpoint_store_in_sqlite() {
    let (sqlite, _folder) = sqlite().await;
    all(&sqlite).await;
    settles(&sqlite).await;
}

#[tokio::test]
async fn g14_each_method_of_a_checkpoint_store_in_postgres() {
    let postgres = Postgres::connect(&shared_postgres_url()).await.unwrap();
    postgres.ensure_schema().await.unwrap();
    all(&postgres).await;
}
