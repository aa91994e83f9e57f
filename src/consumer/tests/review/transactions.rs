//! Findings in the transactional path.

use crate::Attempts;
use crate::backend::{LoadAttempts, NoteAttempts};
use std::{
    collections::BTreeMap,
    future::pending,
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;

use super::*;
use crate::{Checkpoint, ConsumerName, Epoch, Error, ErrorKind, GroupName, Outcome, memory::Tx};

/// A store that works, but for its commits.
#[derive(Debug)]
struct NoCommits {
    memory: Memory,
    error: fn() -> Error,
    commits: AtomicU64,
}

#[async_trait]
impl CheckpointBackend for NoCommits {
    fn name(&self) -> &'static str {
        "no commits"
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        self.memory.load(subscription).await
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        self.memory.list(stream).await
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        self.memory.acquire(request).await
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        self.memory.renew(request).await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        self.memory.release(request).await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        self.memory.advance(request).await
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        self.memory.reset(request).await
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        self.memory.attempts(request).await
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        self.memory.note_attempts(request).await
    }

    async fn close(&self) {}
}

#[async_trait]
impl TransactionalCheckpoint for NoCommits {
    type Tx = Tx;

    async fn begin(&self) -> Result<Tx> {
        self.memory.begin().await
    }

    async fn settled(&self, tx: &mut Tx, request: &Settlement) -> Result<Vec<EntryId>> {
        self.memory.settled(tx, request).await
    }

    async fn commit(&self, _: Tx, _: &Settlement) -> Result<Committed> {
        // Time stands still while everything is ready at once: without an end, a hot loop would go on for ever.
        assert!(self.commits.fetch_add(1, Ordering::Relaxed) < 1_000, "a hot loop");
        Err((self.error)())
    }
}

fn cut() -> Error {
    Error::new(ErrorKind::Unavailable, "cut").with_outcome(Outcome::Unknown)
}

fn fenced() -> Error {
    Error::new(ErrorKind::Fenced, "fenced")
}

fn invalid() -> Error {
    Error::new(ErrorKind::Invalid, "invalid")
}

#[tokio::test(start_paused = true)]
async fn g16_commits_that_fail_all_the_time_are_no_hot_loop() {
    for ownership in both() {
        for error in [cut, fenced, invalid] {
            let memory = Memory::new();
            append(&memory, 3).await;
            let store = Arc::new(NoCommits { memory: memory.clone(), error, commits: AtomicU64::new(0) });
            let consumer = Consumer::builder(subscription(), memory, Arc::clone(&store))
                .configure(|settings| settings.ownership = ownership)
                .build()
                .unwrap();
            let stop = async { Clock::started().sleep(Duration::from_secs(60)).await };
            let _ =
                consumer.run_transactional(|_, _| Box::pin(async { Ok::<_, HandlerError>(()) }), stop).await;
            let commits = store.commits.load(Ordering::Relaxed);
            assert!(commits <= 60, "{ownership:?} {}: {commits} in a minute", error());
        }
    }
}

/// A shared subscription becomes an exclusive one, and entries above its watermark were settled each by itself.
#[tokio::test(start_paused = true)]
async fn g9_an_owner_goes_on_behind_entries_that_were_settled_each_by_itself() {
    for batches in [false, true] {
        let memory = Memory::new();
        append(&memory, 6).await;
        let name = ConsumerName::new("c").unwrap();
        let each = Settlement::each(subscription(), Epoch(0), name, vec![id(2), id(3), id(5)]);
        memory.commit(memory.begin().await.unwrap(), &each).await.unwrap();

        let rows: Arc<Mutex<BTreeMap<u64, u64>>> = Arc::default();
        let handled = Arc::new(AtomicU64::new(0));
        let write = {
            let rows = Arc::clone(&rows);
            move |tx: &mut Tx, delivery: &Delivery| {
                assert!(handled.fetch_add(1, Ordering::Relaxed) < 100, "a hot loop");
                let (rows, id) = (Arc::clone(&rows), delivery.id().ms);
                tx.effect(move || *rows.lock().unwrap().entry(id).or_default() += 1);
            }
        };
        let faults = Faults::new();
        let consumer = Consumer::builder(subscription(), memory.clone(), faults.clone().wrap(memory.clone()))
            .exclusive()
            .build()
            .unwrap();
        let running = if batches {
            tokio::spawn(consumer.run_transactional_batches(
                move |tx, batch| {
                    batch.iter().for_each(|delivery| write(tx, delivery));
                    Box::pin(async { Ok::<_, HandlerError>(()) })
                },
                pending::<()>(),
            ))
        } else {
            tokio::spawn(consumer.run_transactional(
                move |tx, delivery| {
                    write(tx, &delivery);
                    let fails = delivery.id().ms == 5 && delivery.attempt == 1;
                    Box::pin(async move { if fails { Err("not now") } else { Ok(()) } })
                },
                pending::<()>(),
            ))
        };
        let through = soon(async || watermark(&memory).await == Some(id(6))).await;
        running.abort();
        assert!(through, "batches: {batches}, at {:?}", watermark(&memory).await);
        assert_eq!(*rows.lock().unwrap(), BTreeMap::from([(1, 1), (4, 1), (6, 1)]), "batches: {batches}");
        assert!(faults.calls(Operation::Acquire) <= 2, "{}", faults.calls(Operation::Acquire));
    }
}

/// Two lanes: while one waits to handle an entry again whose commit may have taken place, the other commits its own.
#[tokio::test(start_paused = true)]
async fn g9_what_is_in_doubt_stays_so_while_others_commit() {
    let (memory, store, faults) = (Memory::new(), Memory::new(), Faults::new());
    append(&memory, 20).await;
    faults.next(Operation::Commit, Fault::After);
    let consumer = Consumer::builder(subscription(), memory.clone(), faults.clone().wrap(store.clone()))
        .configure(|settings| (settings.attempts_max, settings.on_exhausted) = (1, OnExhausted::Stop))
        .concurrency(2)
        .build()
        .unwrap();
    let rows: Arc<Mutex<BTreeMap<u64, u64>>> = Arc::default();
    let table = Arc::clone(&rows);
    let running = tokio::spawn(consumer.run_transactional(
        move |tx, delivery| {
            let (rows, id) = (Arc::clone(&table), delivery.id().ms);
            // As a unique constraint would.
            let is_there = table.lock().unwrap().contains_key(&id);
            tx.effect(move || *rows.lock().unwrap().entry(id).or_default() += 1);
            Box::pin(async move { if is_there { Err("the row is there already") } else { Ok(()) } })
        },
        pending::<()>(),
    ));
    let through = soon(async || running.is_finished() || watermark(&store).await == Some(id(20))).await;
    assert!(through && !running.is_finished(), "{:?}", running.await);
    running.abort();
    assert_eq!(*rows.lock().unwrap(), (1..=20).map(|n| (n, 1)).collect());
}

/// The group was lost after commits that the checkpoint does not know, and its successor delivers their entries as new.
#[tokio::test(start_paused = true)]
async fn g11_an_entry_that_is_settled_does_not_fail() {
    for batches in [false, true] {
        let (memory, store) = (Memory::new(), Memory::new());
        append(&memory, 4).await;
        let each =
            Settlement::each(subscription(), Epoch(0), ConsumerName::new("c").unwrap(), vec![id(2), id(3)]);
        store.commit(store.begin().await.unwrap(), &each).await.unwrap();
        let handle = |ids: Vec<u64>| {
            // As a unique constraint would.
            let is_there = ids.iter().any(|id| (2..=3).contains(id));
            if is_there { Err("the row is there already") } else { Ok(()) }
        };
        let consumer = Consumer::builder(subscription(), memory.clone(), store.clone())
            .configure(|settings| (settings.attempts_max, settings.on_exhausted) = (1, OnExhausted::Stop))
            .build()
            .unwrap();
        let running = if batches {
            tokio::spawn(consumer.run_transactional_batches(
                move |_, batch| {
                    let handled = handle(batch.iter().map(|delivery| delivery.id().ms).collect());
                    Box::pin(async move { handled })
                },
                pending::<()>(),
            ))
        } else {
            tokio::spawn(consumer.run_transactional(
                move |_, delivery| {
                    let handled = handle(vec![delivery.id().ms]);
                    Box::pin(async move { handled })
                },
                pending::<()>(),
            ))
        };
        let through = soon(async || running.is_finished() || watermark(&store).await == Some(id(4))).await;
        assert!(through && !running.is_finished(), "batches: {batches}, {:?}", running.await);
        running.abort();
    }
}

/// A commit whose reply is lost while the consumer stops, and a lease that is lost then.
#[tokio::test(start_paused = true)]
async fn g15_a_stop_is_not_forgotten_when_a_session_ends_otherwise() {
    for reset in [false, true] {
        let (memory, faults) = (Memory::new(), Faults::new());
        append(&memory, 3).await;
        faults.next(Operation::Commit, Fault::After);
        let consumer = Consumer::builder(subscription(), memory.clone(), faults.clone().wrap(memory.clone()))
            .exclusive()
            .build()
            .unwrap();
        let (stop, stopped) = stopper();
        let (entered, inside) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let (is_in, go_on) = (Arc::clone(&entered), Arc::clone(&inside));
        let running = tokio::spawn(consumer.run_transactional(
            move |_, _| {
                let (is_in, go_on) = (Arc::clone(&is_in), Arc::clone(&go_on));
                Box::pin(async move {
                    is_in.notify_one();
                    go_on.notified().await;
                    Ok::<_, HandlerError>(())
                })
            },
            stopped,
        ));
        entered.notified().await;
        drop(stop);
        Clock::started().sleep(Duration::from_millis(10)).await;
        if reset {
            let reset = ResetCheckpoint::new(subscription(), crate::Position::default()).force(true);
            memory.reset(&reset).await.unwrap();
        }
        inside.notify_one();
        let report = tokio::time::timeout(Duration::from_secs(1), running).await.expect("it stops");
        let report = report.unwrap().unwrap();
        assert_eq!(report.delivered, 3);
        let next = Acquire::new(subscription(), ConsumerName::new("next").unwrap(), Duration::from_secs(1));
        let acquired = memory.acquire(&next).await.unwrap();
        assert!(
            matches!(acquired, Acquired::Owned(_)),
            "reset: {reset}, the lease is given back: {acquired:?}"
        );
    }
}
