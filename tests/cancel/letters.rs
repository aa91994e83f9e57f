//! Dead letters and the operator, dropped at every await.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use highwater::{
    ConsumerName, DeathReason, Delivery, Entry, EntryId, Fields, HandlerError, Letter, LetterFilter, Letters,
    Operator, Position, SeekTo, StreamName, Subscription,
    backend::{
        Append, AtomicSettle, BuryLetters, DeadKeys, EnsureGroup, Fate, Inspect, NewEntry, NewLetter, Read,
        ReadGroup, ReadPending, Redrive, RedriveLetter, StreamBackend,
    },
    dead_letter_stream,
    layer::Operation,
};

use super::{Cut, at_every_await, fred, memory, redis, sqlite};
use crate::support::unique;

const KEY: u64 = 7;

/// A stream of three entries, all of them pending for one consumer.
struct Place<'a, B> {
    backend: &'a B,
    subscription: Subscription,
    me: ConsumerName,
    into: StreamName,
    ids: Vec<EntryId>,
}

impl<'a, B: StreamBackend> Place<'a, B> {
    async fn new(backend: &'a B) -> Self {
        let subscription = Subscription::new(unique("cancel"), "group").unwrap();
        let me = ConsumerName::new("me").unwrap();
        let into = dead_letter_stream(&subscription).unwrap();
        let entries = (1..=3).map(|n| NewEntry::new(Fields::from_iter([("n", n.to_string())])));
        let append = Append::new(subscription.stream.clone(), entries.collect());
        let appended = backend.append(&append).await.unwrap();
        let ids = appended.into_iter().map(Result::unwrap).collect();
        backend.ensure_group(&EnsureGroup::new(subscription.clone(), &Position::default())).await.unwrap();
        backend.read_group(&ReadGroup::new(subscription.clone(), me.clone(), 3)).await.unwrap();
        Self { backend, subscription, me, into, ids }
    }

    fn bury(&self) -> BuryLetters {
        let letter = |(n, id): (usize, &EntryId)| {
            let entry = Entry::new(*id, Fields::from_iter([("n", (n + 1).to_string())]));
            let subscription = self.subscription.clone();
            let letter = Letter::new(subscription, entry, DeathReason::Rejected, self.me.clone());
            NewLetter::new(*id, letter.to_fields(), 1).with_key(Some(KEY))
        };
        let letters = self.ids.iter().enumerate().map(letter).collect();
        BuryLetters::new(self.subscription.clone(), self.into.clone(), letters).held_by(Some(self.me.clone()))
    }

    /// The ids of the entries whose letters lie there, with those of the letters.
    async fn letters(&self) -> Vec<(EntryId, EntryId)> {
        let entries = self.backend.read(&Read::new(self.into.clone(), EntryId::ZERO, 100)).await.unwrap();
        entries.iter().map(|entry| (Letter::from_entry(entry).unwrap().id, entry.id)).collect()
    }

    async fn pending(&self) -> Vec<EntryId> {
        let read = ReadPending::new(self.subscription.clone(), self.me.clone(), EntryId::ZERO, 100);
        self.backend.read_pending(&read).await.unwrap().iter().map(|entry| entry.id).collect()
    }

    async fn len(&self) -> u64 {
        let inspect = Inspect::stream(self.subscription.stream.clone());
        self.backend.inspect(&inspect).await.unwrap().unwrap().len
    }

    async fn dead(&self) -> Vec<(u64, u64)> {
        let request = DeadKeys::new(self.subscription.clone(), self.into.clone());
        self.backend.dead_keys(&request).await.unwrap()
    }
}

pub(super) const OPERATIONS: &[Operation] = &[Operation::DeadLetter, Operation::DeadKeys, Operation::Redrive];

async fn round(operation: Operation, backend: &impl StreamBackend, cut: &Cut) {
    let place = Place::new(backend).await;
    let bury = place.bury();
    if operation == Operation::DeadLetter {
        cut.call(backend.dead_letter(&bury)).await.map(Result::unwrap);
        let mut there: Vec<_> = place.letters().await.iter().map(|(id, _)| *id).collect();
        assert_eq!(there, place.ids[..there.len()], "the first ones");
        there.extend(place.pending().await);
        assert_eq!(there, place.ids, "each is a letter or pending, and never both");
    }
    assert_eq!(backend.dead_letter(&bury).await.unwrap(), [Fate::Buried; 3]);
    let letters = place.letters().await;
    assert_eq!((letters.len(), place.pending().await), (3, vec![]));
    if operation == Operation::DeadKeys {
        let request = DeadKeys::new(place.subscription.clone(), place.into.clone());
        cut.call(backend.dead_keys(&request)).await.map(Result::unwrap);
    }
    assert_eq!(place.dead().await, [(KEY, 3)]);
    let again = |(id, letter): &(EntryId, EntryId)| {
        let fields = Fields::from_iter([("again", id.to_string())]);
        RedriveLetter::new(*letter, *id, Some(KEY)).append(Some(fields))
    };
    let redrive =
        Redrive::new(place.subscription.clone(), place.into.clone(), letters.iter().map(again).collect());
    if operation == Operation::Redrive {
        cut.call(backend.redrive(&redrive)).await.map(Result::unwrap);
        let left = place.letters().await.len() as u64;
        assert_eq!(place.len().await, 6 - left, "each is a letter or an entry again, and never both");
    }
    backend.redrive(&redrive).await.unwrap();
    assert_eq!((place.letters().await.len(), place.len().await, place.dead().await), (0, 6, vec![]));
}

/// The calls of an operator and of whoever looks after dead letters. Each is repeated after it was dropped, as its page says, and
/// then what it is for holds.
pub(super) const OPERATOR: &[&str] =
    &["forget", "list", "pause", "redrive", "redrive_to", "reset", "resume", "seek", "skip", "status"];

async fn operated<B: AtomicSettle>(call: &str, backend: &Arc<B>, cut: &Cut) {
    let place = Place::new(backend).await;
    let Place { subscription, ids, .. } = &place;
    let operator = Operator::new(subscription.clone(), Arc::clone(backend), Arc::clone(backend));
    match call {
        "pause" => {
            cut.call(operator.pause("")).await.map(Result::unwrap);
            operator.pause("").await.unwrap();
            assert!(operator.status().await.unwrap().is_paused());
        }
        "resume" => {
            operator.pause("").await.unwrap();
            cut.call(operator.resume()).await.map(Result::unwrap);
            operator.resume().await.unwrap();
            assert!(!operator.status().await.unwrap().is_paused());
        }
        "seek" | "reset" => {
            let position = Position::at(ids[1]);
            if call == "seek" {
                cut.call(operator.seek(SeekTo::Id(ids[1]), "")).await.map(Result::unwrap);
                operator.seek(SeekTo::Id(ids[1]), "").await.unwrap();
            } else {
                cut.call(operator.reset(position.clone(), "")).await.map(Result::unwrap);
                operator.reset(position, "").await.unwrap();
            }
            let status = operator.status().await.unwrap();
            assert_eq!(status.checkpoint.as_ref().unwrap().position.watermark, ids[1]);
            assert!(!status.is_paused() && status.pending() == 0);
        }
        "skip" => {
            operator.seek(SeekTo::Start, "").await.unwrap();
            cut.call(operator.skip(ids[0], "")).await.map(Result::unwrap);
            // Where it took place, the repetition says so, and never skips another one.
            let _ = operator.skip(ids[0], "").await;
            let settled = operator.status().await.unwrap().checkpoint.unwrap().position.watermark;
            assert!(settled >= ids[0] && settled < ids[1], "{settled}");
        }
        "status" => {
            cut.call(operator.status()).await.map(Result::unwrap);
            assert_eq!(operator.status().await.unwrap().pending(), 3);
        }
        _ => letters_of(call, &place, backend, cut).await,
    }
}

/// The calls of whoever looks after dead letters.
async fn letters_of<B: AtomicSettle>(call: &str, place: &Place<'_, Arc<B>>, backend: &Arc<B>, cut: &Cut) {
    let letters = Letters::new(place.subscription.clone(), Arc::clone(backend)).unwrap();
    let all = LetterFilter::default();
    backend.dead_letter(&place.bury()).await.unwrap();
    match call {
        "list" => {
            cut.call(letters.list(&all, EntryId::ZERO, 10)).await.map(Result::unwrap);
            assert_eq!(letters.list(&all, EntryId::ZERO, 10).await.unwrap().letters.len(), 3);
            return;
        }
        "forget" => {
            cut.call(letters.forget(&all)).await.map(Result::unwrap);
            letters.forget(&all).await.unwrap();
            assert_eq!(place.len().await, 3);
        }
        "redrive" => {
            cut.call(letters.redrive(&all)).await.map(Result::unwrap);
            letters.redrive(&all).await.unwrap();
            assert_eq!(place.len().await, 6, "each once");
        }
        _ => {
            let counted = Arc::new(AtomicUsize::new(0));
            let called = Arc::clone(&counted);
            let handler = move |_: Delivery| {
                called.fetch_add(1, Ordering::Relaxed);
                async { Ok::<_, HandlerError>(()) }
            };
            cut.call(letters.redrive_to(&all, &handler)).await.map(Result::unwrap);
            letters.redrive_to(&all, &handler).await.unwrap();
            assert!(counted.load(Ordering::Relaxed) >= 3, "at least once");
        }
    }
    assert_eq!(place.letters().await, []);
}

async fn all<B: AtomicSettle>(backend: B) {
    let backend = Arc::new(backend);
    for &operation in OPERATIONS {
        let awaits = at_every_await(operation.name(), async |cut| round(operation, &*backend, cut).await);
        assert!(awaits.await > 0, "{operation} never waits, so nothing was dropped");
    }
    for call in OPERATOR {
        let awaits = at_every_await(call, async |cut| operated(call, &backend, cut).await);
        assert!(awaits.await > 0, "{call} never waits, so nothing was dropped");
    }
}

#[tokio::test]
async fn g14_letters_and_operations_in_memory() {
    all(memory()).await;
}

#[tokio::test]
async fn g14_letters_and_operations_in_redis() {
    all(redis().await).await;
}

#[tokio::test]
async fn g14_letters_and_operations_in_redis_by_fred() {
    all(fred().await).await;
}

#[tokio::test]
async fn g14_letters_and_operations_in_sqlite() {
    let (sqlite, _folder) = sqlite().await;
    all(sqlite).await;
}
