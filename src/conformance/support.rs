//! What the cases stand on: names of their own, short forms of the requests, and waiting without guessing.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use crate::{
    ConsumerName, EntryId, Epoch, Error, ErrorKind, Fields, Position, Result, StreamName, Subscription,
    backend::{
        Ack, Acked, Acquire, Acquired, Advance, Advanced, Append, AtomicSettle, Beat, CheckpointBackend,
        Claim, Claimed, EnsureGroup, Grant, GroupState, Heartbeat, Inspect, Leave, NewEntry, PendingEntry,
        Read, ReadGroup, ReadPending, Release, Removal, Renew, Settle, Settled, StreamBackend, StreamState,
        Token,
    },
    clock::{self, Clock},
};

/// How soon something must have happened that takes no time by itself. Generous: only a failure waits so long.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// A time to live that no case outlives.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// A time to live that a case waits for.
pub(super) const SHORT: Duration = Duration::from_millis(100);

/// How a case ends, if not well.
#[derive(Debug)]
pub(super) enum Stop {
    NotApplicable(&'static str),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) type Verdict = Result<(), Stop>;

/// The id `ms-0`.
pub(super) fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

pub(super) fn ids(range: impl IntoIterator<Item = u64>) -> Vec<EntryId> {
    range.into_iter().map(id).collect()
}

pub(super) fn fields(value: &str) -> Fields {
    [("n".to_owned(), value.to_owned())].into_iter().collect()
}

pub(super) fn consumer(name: &str) -> ConsumerName {
    ConsumerName::new(name).expect("the names in the cases are valid")
}

/// A subscription that no other case, run or process uses.
pub(super) fn unique(case: &str) -> Subscription {
    let stream = format!("conformance:{}:{:016x}", case.replace("::", "."), clock::random());
    Subscription::new(stream, "g").expect("the names in the cases are valid")
}

/// Waits until it holds.
pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let clock = Clock::new();
    while !holds().await? {
        assert!(clock.elapsed() < SOON, "it never happened: {what}");
        clock.sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Does not wait for long.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("it takes too long: {what}"),
    }
}

#[track_caller]
pub(super) fn fails<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(value) => panic!("expected {kind:?}, got {value:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{error:?}"),
    }
}

/// Each of the expected ids is there, once, and no other.
#[track_caller]
pub(super) fn each_once(got: Vec<EntryId>, expected: &[EntryId]) {
    let set: BTreeSet<_> = got.iter().copied().collect();
    assert_eq!(set.len(), got.len(), "an entry came twice: {got:?}");
    assert_eq!(set.into_iter().collect::<Vec<_>>(), expected);
}

pub(super) fn ids_of(entries: &[PendingEntry]) -> Vec<EntryId> {
    entries.iter().map(|entry| entry.id).collect()
}

/// A stream backend, and a subscription on it that is the case's own.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) backend: Arc<dyn StreamBackend>,
    pub(super) subscription: Subscription,
    pub(super) clock: Clock,
}

impl Streams {
    pub(super) fn new(backend: Arc<dyn StreamBackend>, case: &str) -> Self {
        Self { backend, subscription: unique(case), clock: Clock::new() }
    }

    /// Removes the stream of a case that went well. That of another stays, for whoever looks for the reason.
    pub(super) async fn clean(&self, verdict: &Verdict) {
        if verdict.is_ok() {
            // The case may have closed the backend.
            let _ = self.remove_stream().await;
            let _ = self.at(self.graveyard()).remove_stream().await;
        }
    }

    pub(super) fn needs_counts(&self) -> Verdict {
        let capable = self.backend.capabilities().counts_entries;
        if capable { Ok(()) } else { Err(Stop::NotApplicable("the backend does not count entries")) }
    }

    pub(super) fn needs_incarnations(&self) -> Verdict {
        let capable = self.backend.capabilities().names_incarnations;
        if capable {
            Ok(())
        } else {
            Err(Stop::NotApplicable("the backend does not name the lives of a stream"))
        }
    }

    /// The same stream, another group.
    pub(super) fn group(&self, name: &str) -> Self {
        let group = name.try_into().expect("the names in the cases are valid");
        let subscription = Subscription { stream: self.subscription.stream.clone(), group };
        Self { subscription, ..self.clone() }
    }

    /// Another stream, the same group.
    pub(super) fn at(&self, stream: StreamName) -> Self {
        let subscription = Subscription { stream, group: self.subscription.group.clone() };
        Self { subscription, ..self.clone() }
    }

    pub(super) async fn append_all(&self, entries: Vec<NewEntry>) -> Result<Vec<Result<EntryId>>> {
        self.backend.append(&Append::new(self.subscription.stream.clone(), entries)).await
    }

    /// Appends entries whose ids the server chooses.
    pub(super) async fn append(&self, count: usize) -> Result<Vec<EntryId>> {
        let entries = (0..count).map(|n| NewEntry::new(fields(&n.to_string()))).collect();
        self.append_all(entries).await?.into_iter().collect()
    }

    /// Appends entries with the ids `ms-0`.
    pub(super) async fn append_at(&self, ms: impl IntoIterator<Item = u64>) -> Result<Vec<EntryId>> {
        let entry = |ms: u64| NewEntry::new(fields(&ms.to_string())).with_id(id(ms));
        self.append_all(ms.into_iter().map(entry).collect()).await?.into_iter().collect()
    }

    pub(super) async fn read(&self, after: EntryId, limit: usize) -> Result<Vec<EntryId>> {
        let read = Read::new(self.subscription.stream.clone(), after, limit);
        Ok(self.backend.read(&read).await?.into_iter().map(|entry| entry.id).collect())
    }

    pub(super) async fn state(&self) -> Result<StreamState> {
        let state = self.backend.inspect(&Inspect::subscription(&self.subscription)).await?;
        state.ok_or_else(|| Error::new(ErrorKind::Missing, "the case expects the stream to be there"))
    }

    pub(super) async fn group_state(&self) -> Result<GroupState> {
        let group = self.state().await?.group;
        group.ok_or_else(|| Error::new(ErrorKind::Missing, "the case expects the group to be there"))
    }

    pub(super) async fn ensure_at(&self, at: EntryId) -> Result<bool> {
        self.ensure(&Position::at(at)).await
    }

    pub(super) async fn ensure(&self, position: &Position) -> Result<bool> {
        self.backend.ensure_group(&EnsureGroup::new(self.subscription.clone(), position)).await
    }

    pub(super) fn reading(&self, who: &str, limit: usize) -> ReadGroup {
        ReadGroup::new(self.subscription.clone(), consumer(who), limit)
    }

    pub(super) async fn read_group(&self, who: &str, limit: usize) -> Result<Vec<EntryId>> {
        let deliveries = self.backend.read_group(&self.reading(who, limit)).await?;
        Ok(deliveries.iter().map(crate::Delivery::id).collect())
    }

    pub(super) async fn pending_after(
        &self,
        who: &str,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<PendingEntry>> {
        let read = ReadPending::new(self.subscription.clone(), consumer(who), after, limit);
        self.backend.read_pending(&read).await
    }

    pub(super) async fn pending(&self, who: &str) -> Result<Vec<EntryId>> {
        Ok(ids_of(&self.pending_after(who, EntryId::ZERO, 1000).await?))
    }

    pub(super) async fn ack(&self, ids: &[EntryId]) -> Result<Acked> {
        self.backend.ack(&Ack::new(self.subscription.clone(), ids.to_vec())).await
    }

    /// Acks, and returns the position, of a group that is there.
    pub(super) async fn position(&self, ids: &[EntryId]) -> Result<Position> {
        let position = self.ack(ids).await?.position;
        position.ok_or_else(|| Error::new(ErrorKind::Missing, "the case expects the group to be there"))
    }

    pub(super) async fn beat(&self, who: &str, token: u64, ttl: Duration) -> Result<Beat> {
        let beat = Heartbeat::new(self.subscription.clone(), consumer(who), Token(token), ttl);
        self.backend.heartbeat(&beat).await
    }

    pub(super) async fn leave(&self, who: &str, token: u64) -> Result<u64> {
        let leave = Leave::new(self.subscription.clone(), consumer(who), Token(token));
        Ok(self.backend.leave(&leave).await?.pending)
    }

    pub(super) async fn claim_once(
        &self,
        who: &str,
        from: EntryId,
        limit: usize,
        min_idle: Duration,
    ) -> Result<Claimed> {
        let claim = Claim::new(self.subscription.clone(), consumer(who), limit, min_idle).from(from);
        self.backend.claim(&claim).await
    }

    /// Claims to the end of the pending list, `limit` at a time.
    pub(super) async fn claim(
        &self,
        who: &str,
        limit: usize,
        min_idle: Duration,
    ) -> Result<Vec<PendingEntry>> {
        let mut entries = Vec::new();
        let mut from = Some(EntryId::ZERO);
        let mut calls = 0;
        while let Some(at) = from {
            let claimed = self.claim_once(who, at, limit, min_idle).await?;
            assert!(claimed.entries.len() <= limit, "the limit is {limit}: {:?}", claimed.entries);
            entries.extend(claimed.entries);
            from = claimed.next;
            calls += 1;
            assert!(calls < 1000, "the cursor of `claim` never comes to the end");
        }
        Ok(entries)
    }

    pub(super) async fn remove(&self, ids: &[EntryId]) -> Result<u64> {
        let removal = Removal::Entries(self.subscription.stream.clone(), ids.to_vec());
        self.backend.remove(&removal).await
    }

    pub(super) async fn remove_group(&self) -> Result<u64> {
        self.backend.remove(&Removal::Group(self.subscription.clone())).await
    }

    pub(super) async fn remove_stream(&self) -> Result<u64> {
        self.backend.remove(&Removal::Stream(self.subscription.stream.clone())).await
    }
}

/// A checkpoint store, and a subscription in it that is the case's own.
#[derive(Clone)]
pub(super) struct Checkpoints {
    pub(super) backend: Arc<dyn CheckpointBackend>,
    pub(super) subscription: Subscription,
    pub(super) clock: Clock,
}

impl Checkpoints {
    pub(super) fn new(backend: Arc<dyn CheckpointBackend>, case: &str) -> Self {
        Self { backend, subscription: unique(case), clock: Clock::new() }
    }

    pub(super) fn of(&self, subscription: Subscription) -> Self {
        Self { subscription, ..self.clone() }
    }

    pub(super) async fn position(&self) -> Result<Option<Position>> {
        Ok(self.backend.load(&self.subscription).await?.map(|checkpoint| checkpoint.position))
    }

    pub(super) async fn watermark(&self) -> Result<Option<EntryId>> {
        Ok(self.position().await?.map(|position| position.watermark))
    }

    pub(super) async fn acquire(&self, who: &str, ttl: Duration) -> Result<Acquired> {
        self.backend.acquire(&Acquire::new(self.subscription.clone(), consumer(who), ttl)).await
    }

    /// Takes ownership of a subscription that is free.
    pub(super) async fn own(&self, who: &str, ttl: Duration) -> Result<Grant> {
        match self.acquire(who, ttl).await? {
            Acquired::Owned(ownership) => Ok(ownership),
            held => panic!("{who} expects the subscription to be free: {held:?}"),
        }
    }

    pub(super) async fn is_held(&self, who: &str) -> Result<bool> {
        Ok(matches!(self.acquire(who, LONG).await?, Acquired::Held { .. }))
    }

    pub(super) async fn advance(&self, epoch: Epoch, position: &Position) -> Result<Advanced> {
        let advance = Advance::new(self.subscription.clone(), epoch, position.clone(), consumer("owner"));
        self.backend.advance(&advance).await
    }

    pub(super) async fn advance_to(&self, epoch: Epoch, watermark: u64) -> Result<Advanced> {
        self.advance(epoch, &Position::at(id(watermark))).await
    }

    pub(super) async fn renew(&self, epoch: Epoch, ttl: Duration) -> Result<()> {
        self.backend.renew(&Renew::new(self.subscription.clone(), epoch, ttl)).await
    }

    pub(super) async fn release(&self, epoch: Epoch) -> Result<()> {
        self.backend.release(&Release::new(self.subscription.clone(), epoch)).await
    }
}

/// A backend that settles in one step, as both of its halves.
#[derive(Clone)]
pub(super) struct Settles {
    pub(super) backend: Arc<dyn AtomicSettle>,
    pub(super) streams: Streams,
    pub(super) checkpoints: Checkpoints,
}

impl Settles {
    pub(super) fn new(backend: Arc<dyn AtomicSettle>, case: &str) -> Self {
        let streams = Streams::new(Arc::<dyn AtomicSettle>::clone(&backend), case);
        let checkpoints = Checkpoints {
            backend: Arc::<dyn AtomicSettle>::clone(&backend),
            subscription: streams.subscription.clone(),
            clock: streams.clock.clone(),
        };
        Self { backend, streams, checkpoints }
    }

    pub(super) async fn settle(&self, epoch: Epoch, ids: &[EntryId]) -> Result<Settled> {
        let subscription = self.streams.subscription.clone();
        self.backend.settle(&Settle::new(subscription, ids.to_vec(), epoch, consumer("owner"))).await
    }

    /// Appends `1-0` to `count-0` and delivers them all to `a`.
    pub(super) async fn deliver(&self, count: u64) -> Result<Vec<EntryId>> {
        self.streams.append_at(1..=count).await?;
        self.streams.ensure_at(EntryId::ZERO).await?;
        self.streams.read_group("a", 1000).await
    }
}
