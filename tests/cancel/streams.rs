//! The methods of a stream, each dropped at every await.

use std::time::Duration;

use highwater::{
    ConsumerName, EntryId, ErrorKind, Fields, Position, Subscription,
    backend::{
        Ack, Append, Claim, EnsureGroup, Heartbeat, Inspect, Leave, NewEntry, Read, ReadGroup, ReadPending,
        Removal, StreamBackend, Token, Trim, TrimLimit,
    },
    layer::Operation,
};

use super::{Cut, at_every_await, fred, memory, redis, sqlite};
use crate::support::unique;

const TTL: Duration = Duration::from_secs(60);
/// Long enough that a read waits, and no longer.
const BLOCK: Duration = Duration::from_millis(20);

/// A stream of six entries, of which the consumer `dead`, that never kept a heartbeat, holds the first four.
struct Place<'a, B> {
    backend: &'a B,
    subscription: Subscription,
    dead: ConsumerName,
    me: ConsumerName,
}

fn entries(numbers: std::ops::RangeInclusive<u64>) -> Vec<NewEntry> {
    numbers.map(|n| NewEntry::new(Fields::from_iter([("n", n.to_string())]))).collect()
}

impl<'a, B: StreamBackend> Place<'a, B> {
    async fn new(backend: &'a B) -> Self {
        let subscription = Subscription::new(unique("cancel"), "group").unwrap();
        let [dead, me] = ["dead", "me"].map(|name| ConsumerName::new(name).unwrap());
        let place = Self { backend, subscription, dead, me };
        let stream = place.subscription.stream.clone();
        for appended in backend.append(&Append::new(stream, entries(1..=6))).await.unwrap() {
            appended.unwrap();
        }
        backend.ensure_group(&place.group()).await.unwrap();
        let read = ReadGroup::new(place.subscription.clone(), place.dead.clone(), 4);
        assert_eq!(backend.read_group(&read).await.unwrap().len(), 4);
        place
    }

    fn group(&self) -> EnsureGroup {
        EnsureGroup::new(self.subscription.clone(), &Position::default())
    }

    fn heartbeat(&self, token: u64) -> Heartbeat {
        Heartbeat::new(self.subscription.clone(), self.me.clone(), Token(token), TTL)
    }

    fn removal(&self) -> Removal {
        Removal::Group(self.subscription.clone())
    }

    /// All entries, by their numbers.
    async fn numbers(&self) -> Vec<u64> {
        let read = Read::new(self.subscription.stream.clone(), EntryId::ZERO, 100);
        let entries = self.backend.read(&read).await.unwrap();
        entries.iter().map(|entry| number(&entry.fields)).collect()
    }

    async fn pending(&self, consumer: &ConsumerName) -> Vec<u64> {
        let read = ReadPending::new(self.subscription.clone(), consumer.clone(), EntryId::ZERO, 100);
        let pending = self.backend.read_pending(&read).await.unwrap();
        pending.iter().map(|entry| number(entry.fields.as_ref().unwrap())).collect()
    }

    async fn rest(&self) -> Vec<u64> {
        let read = ReadGroup::new(self.subscription.clone(), self.me.clone(), 100);
        self.backend.read_group(&read).await.unwrap().iter().map(|d| number(d.fields())).collect()
    }

    async fn ids(&self) -> Vec<EntryId> {
        let read = Read::new(self.subscription.stream.clone(), EntryId::ZERO, 100);
        self.backend.read(&read).await.unwrap().iter().map(|entry| entry.id).collect()
    }

    /// Nothing is lost of what was there: it is pending for somebody, or comes.
    async fn check_all_there(&self) {
        let mut there = self.pending(&self.dead).await;
        there.extend(self.pending(&self.me).await);
        there.extend(self.rest().await);
        there.sort_unstable();
        assert_eq!(there, [1, 2, 3, 4, 5, 6]);
    }
}

fn number(fields: &Fields) -> u64 {
    std::str::from_utf8(fields.get("n").unwrap()).unwrap().parse().unwrap()
}

/// Drops the call of this operation, and holds what is there against what the trait says. `false` if it is not one of a stream.
async fn round(operation: Operation, backend: &impl StreamBackend, cut: &Cut) -> bool {
    let place = Place::new(backend).await;
    match operation {
        Operation::Append | Operation::Trim | Operation::Ack | Operation::Remove => {
            changes(operation, &place, cut).await;
            return true;
        }
        Operation::Inspect | Operation::Read | Operation::ReadPending => looks(operation, &place, cut).await,
        _ if !moves(operation, &place, cut).await => return false,
        _ => {}
    }
    place.check_all_there().await;
    true
}

/// What changes the entries, or what is pending.
async fn changes(operation: Operation, place: &Place<'_, impl StreamBackend>, cut: &Cut) {
    let Place { backend, subscription, dead, .. } = place;
    match operation {
        Operation::Append => {
            let append = Append::new(subscription.stream.clone(), entries(7..=9));
            cut.call(backend.append(&append)).await.map(Result::unwrap);
            let there = place.numbers().await;
            assert_eq!(there, (1..=there.len() as u64).collect::<Vec<_>>(), "a prefix, in order");
            assert!((6..=9).contains(&there.len()));
            let more = Append::new(subscription.stream.clone(), entries(10..=10));
            backend.append(&more).await.unwrap()[0].as_ref().unwrap();
            assert_eq!(place.numbers().await.last(), Some(&10));
        }
        Operation::Trim => {
            let trim = Trim::new(subscription.stream.clone(), TrimLimit::Len(3));
            cut.call(backend.trim(&trim)).await.map(Result::unwrap);
            assert!([3, 6].contains(&place.numbers().await.len()));
            backend.trim(&trim).await.unwrap();
            assert_eq!(place.numbers().await, [4, 5, 6]);
        }
        Operation::Ack => {
            let ids = place.ids().await;
            let ack = Ack::new(subscription.clone(), ids[..2].to_vec());
            cut.call(backend.ack(&ack)).await.map(Result::unwrap);
            let there = place.pending(dead).await;
            assert!(there == [1, 2, 3, 4] || there == [3, 4], "all or nothing: {there:?}");
            let acked = backend.ack(&ack).await.unwrap();
            // It ends right before the third, whose id begins a millisecond of its own where the server was slow to add it.
            let watermark = acked.position.unwrap().watermark;
            assert!((ids[1]..ids[2]).contains(&watermark), "{watermark} of {ids:?}");
            assert_eq!((place.pending(dead).await, place.rest().await), (vec![3, 4], vec![5, 6]));
        }
        _ => {
            cut.call(backend.remove(&place.removal())).await.map(Result::unwrap);
            let state = backend.inspect(&Inspect::subscription(subscription)).await.unwrap().unwrap();
            assert!(state.group.is_none_or(|group| group.pending == 4), "all or nothing");
            backend.remove(&place.removal()).await.unwrap();
            assert_eq!(place.numbers().await.len(), 6);
            let ensured = backend.ensure_group(&place.group()).await.unwrap();
            assert!(ensured, "it was gone");
            assert_eq!(place.rest().await.len(), 6);
        }
    }
}

/// What only looks.
async fn looks(operation: Operation, place: &Place<'_, impl StreamBackend>, cut: &Cut) {
    let Place { backend, subscription, dead, .. } = place;
    match operation {
        Operation::Inspect => {
            let inspect = Inspect::stream(subscription.stream.clone());
            cut.call(backend.inspect(&inspect)).await.map(Result::unwrap);
            assert_eq!(backend.inspect(&inspect).await.unwrap().unwrap().len, 6);
        }
        Operation::Read => {
            // It waits: nothing is above.
            let last = *place.ids().await.last().unwrap();
            let read = Read::new(subscription.stream.clone(), last, 10).block(BLOCK);
            cut.call(backend.read(&read)).await.map(Result::unwrap);
            assert_eq!(place.numbers().await.len(), 6);
        }
        _ => {
            let read = ReadPending::new(subscription.clone(), dead.clone(), EntryId::ZERO, 10);
            cut.call(backend.read_pending(&read)).await.map(Result::unwrap);
            assert_eq!(place.pending(dead).await, [1, 2, 3, 4]);
        }
    }
}

/// What moves entries to a consumer, or says something of one. `false` if this does not.
async fn moves(operation: Operation, place: &Place<'_, impl StreamBackend>, cut: &Cut) -> bool {
    let Place { backend, subscription, me, .. } = place;
    match operation {
        Operation::EnsureGroup => {
            let other = Subscription::new(subscription.stream.as_str(), "other").unwrap();
            let ensure = EnsureGroup::new(other.clone(), &Position::default());
            cut.call(backend.ensure_group(&ensure)).await.map(Result::unwrap);
            backend.ensure_group(&ensure).await.unwrap();
            let read = ReadGroup::new(other, me.clone(), 100);
            assert_eq!(backend.read_group(&read).await.unwrap().len(), 6);
        }
        Operation::ReadGroup => {
            let read = ReadGroup::new(subscription.clone(), me.clone(), 1);
            cut.call(backend.read_group(&read)).await.map(Result::unwrap);
        }
        Operation::Claim => {
            let claim = Claim::new(subscription.clone(), me.clone(), 2, Duration::ZERO);
            cut.call(backend.claim(&claim)).await.map(Result::unwrap);
        }
        Operation::Heartbeat => {
            cut.call(backend.heartbeat(&place.heartbeat(1))).await.map(Result::unwrap);
            backend.heartbeat(&place.heartbeat(1)).await.unwrap();
            let busy = backend.heartbeat(&place.heartbeat(2)).await.unwrap_err();
            assert_eq!(busy.kind(), ErrorKind::Busy);
        }
        Operation::Leave => {
            backend.heartbeat(&place.heartbeat(1)).await.unwrap();
            let leave = Leave::new(subscription.clone(), me.clone(), Token(1));
            cut.call(backend.leave(&leave)).await.map(Result::unwrap);
            backend.leave(&leave).await.unwrap();
            backend.heartbeat(&place.heartbeat(2)).await.expect("the name is free");
        }
        _ => return false,
    }
    true
}

/// All operations of a stream, over this backend.
async fn all(backend: &impl StreamBackend) {
    for &operation in Operation::ALL {
        let mut is_one = true;
        let awaits = at_every_await(operation.name(), async |cut| {
            is_one = round(operation, backend, cut).await;
        });
        let awaits = awaits.await;
        assert_eq!(is_one, OPERATIONS.contains(&operation), "{operation} has no case, or is not listed");
        if is_one {
            assert!(awaits > 0, "{operation} never waits, so nothing was dropped");
        }
    }
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::Append,
    Operation::Trim,
    Operation::Inspect,
    Operation::Read,
    Operation::EnsureGroup,
    Operation::ReadGroup,
    Operation::ReadPending,
    Operation::Claim,
    Operation::Heartbeat,
    Operation::Ack,
    Operation::Leave,
    Operation::Remove,
];

#[tokio::test]
async fn g14_each_method_of_a_stream_in_memory() {
    all(&memory()).await;
}

#[tokio::test]
async fn g14_each_method_of_a_stream_in_redis() {
    all(&redis().await).await;
}

#[tokio::test]
async fn g14_each_method_of_a_stream_in_redis_by_fred() {
    all(&fred().await).await;
}

#[tokio::test]
async fn g14_each_method_of_a_stream_in_sqlite() {
    let (sqlite, _folder) = sqlite().await;
    all(&sqlite).await;
}
