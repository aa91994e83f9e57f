//! G9: effects and checkpoint are committed together.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::*;
use crate::{
    ErrorKind,
    layer::{Fault, Faults, Layer, Layered, Operation},
    memory::Tx,
};

type Store = Layered<Memory, Faults>;

/// The user's table: a row for each effect, by the number of its entry.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<BTreeMap<u64, u64>>>,
    handled: Arc<AtomicU64>,
    full: Arc<Notify>,
    until: usize,
}

impl Table {
    fn until(until: usize) -> Self {
        Self { until, ..Self::default() }
    }

    fn insert(&self, tx: &mut Tx, delivery: &Delivery) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        let (table, id) = (self.clone(), delivery.id().ms);
        tx.effect(move || {
            let mut rows = table.rows.lock().unwrap();
            *rows.entry(id).or_default() += 1;
            if rows.len() == table.until {
                table.full.notify_waiters();
                table.full.notify_one();
            }
        });
    }

    /// Ends when all rows are there, or after long enough for a test to fail on what is missing.
    async fn full(self) {
        let clock = Clock::new();
        tokio::select! {
            () = self.full.notified() => {}
            () = clock.sleep(Duration::from_secs(3_000)) => {}
        }
    }

    #[track_caller]
    fn assert_once(&self, count: u64) {
        let expected: BTreeMap<_, _> = (1..=count).map(|n| (n, 1)).collect();
        assert_eq!(*self.rows.lock().unwrap(), expected);
    }
}

/// Two stores, the checkpoint's one with faults.
struct Stores {
    stream: Memory,
    store: Memory,
    faults: Faults,
}

impl Stores {
    async fn with(count: u64) -> Self {
        let stores = Self { stream: Memory::new(), store: Memory::new(), faults: Faults::new() };
        append(&stores.stream, count).await;
        stores
    }

    fn builder(&self, ownership: Ownership) -> Builder<Memory, Store> {
        let store = self.faults.clone().wrap(self.store.clone());
        Consumer::builder(subscription(), self.stream.clone(), store)
            .configure(|settings| settings.ownership = ownership)
    }
}

async fn run(consumer: Consumer<Memory, Store>, table: &Table) -> Result<Report> {
    let (rows, stop) = (table.clone(), table.clone().full());
    consumer
        .run_transactional(
            move |tx, delivery| {
                rows.insert(tx, &delivery);
                Box::pin(async { Ok::<_, HandlerError>(()) })
            },
            stop,
        )
        .await
}

async fn run_batches(consumer: Consumer<Memory, Store>, table: &Table) -> Result<Report> {
    let (rows, stop) = (table.clone(), table.clone().full());
    consumer
        .run_transactional_batches(
            move |tx, batch| {
                batch.iter().for_each(|delivery| rows.insert(tx, delivery));
                Box::pin(async { Ok::<_, HandlerError>(()) })
            },
            stop,
        )
        .await
}

#[tokio::test(start_paused = true)]
async fn g9_rows_and_checkpoint_are_committed_together() {
    for ownership in both() {
        for batches in [false, true] {
            let (stores, table) = (Stores::with(250).await, Table::until(250));
            let consumer = stores.builder(ownership).build().unwrap();
            let report = match batches {
                false => run(consumer, &table).await.unwrap(),
                true => run_batches(consumer, &table).await.unwrap(),
            };
            table.assert_once(250);
            assert_eq!((report.settled, report.unsaved), (250, 0), "{ownership:?}");
            assert_eq!(watermark(&stores.store).await, Some(EntryId::new(250, 0)), "{ownership:?}");
            let transactions = stores.faults.calls(Operation::Commit);
            assert_eq!(transactions, if batches { 3 } else { 250 }, "{ownership:?}");
            // An owner writes its position with the rows, and nothing beside them.
            let advances = stores.faults.calls(Operation::Advance);
            assert!(ownership == Ownership::Shared || advances <= 1, "{advances}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g9_one_store_acks_in_the_same_step() {
    let (memory, table) = (Memory::new(), Table::until(20));
    append(&memory, 20).await;
    let rows = table.clone();
    let consumer = builder(&memory, Ownership::Shared).concurrency(4).build().unwrap();
    let report = consumer
        .run_transactional(
            move |tx, delivery| {
                rows.insert(tx, &delivery);
                Box::pin(async { Ok::<_, HandlerError>(()) })
            },
            table.clone().full(),
        )
        .await
        .unwrap();
    table.assert_once(20);
    assert_eq!((report.settled, report.watermark), (20, Some(EntryId::new(20, 0))));
    let state = memory.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap();
    assert_eq!(state.group.unwrap().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn g9_what_a_failed_handler_wrote_is_rolled_back() {
    for ownership in both() {
        let (stores, table) = (Stores::with(5).await, Table::until(5));
        let (rows, stop) = (table.clone(), table.clone().full());
        let report = stores
            .builder(ownership)
            .build()
            .unwrap()
            .run_transactional(
                move |tx, delivery| {
                    rows.insert(tx, &delivery);
                    assert!(delivery.id().ms != 2 || delivery.attempt > 1, "a panic");
                    let fails = delivery.id().ms == 3 && delivery.attempt < 3;
                    Box::pin(async move { if fails { Err("not now") } else { Ok(()) } })
                },
                stop,
            )
            .await
            .unwrap();
        table.assert_once(5);
        assert_eq!(report.retried, 3, "{ownership:?}");
        assert_eq!(table.handled.load(Ordering::Relaxed), 8, "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g9_a_commit_whose_reply_was_lost_is_resolved_before_the_next() {
    for ownership in both() {
        for batches in [false, true] {
            let (stores, table) = (Stores::with(30).await, Table::until(30));
            for fault in [Fault::After, Fault::Before, Fault::After, Fault::After] {
                stores.faults.next(Operation::Commit, fault);
            }
            let consumer = stores.builder(ownership).batch_entries_max(7).build().unwrap();
            match batches {
                false => run(consumer, &table).await.unwrap(),
                true => run_batches(consumer, &table).await.unwrap(),
            };
            table.assert_once(30);
            assert_eq!(watermark(&stores.store).await, Some(EntryId::new(30, 0)), "{ownership:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g9_faults_of_every_kind_change_no_row() {
    for seed in 0..40 {
        for ownership in both() {
            let stream = Memory::new();
            append(&stream, 60).await;
            let faults = Faults::seeded(seed, 0.15, Duration::from_secs(1));
            let stores = Stores { stream, store: Memory::new(), faults };
            let table = Table::until(60);
            let runs: Vec<_> = (0..2)
                .map(|nth| {
                    let consumer = stores.builder(ownership).batch_entries_max(4).build().unwrap();
                    let table = table.clone();
                    tokio::spawn(async move {
                        match nth {
                            0 => run(consumer, &table).await,
                            _ => run_batches(consumer, &table).await,
                        }
                    })
                })
                .collect();
            until("all rows are there", async || table.rows.lock().unwrap().len() == 60).await;
            runs.iter().for_each(tokio::task::JoinHandle::abort);
            table.assert_once(60);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g16_an_outage_of_the_store_is_no_failure_of_the_entry() {
    for ownership in both() {
        let (stores, table) = (Stores::with(10).await, Table::until(10));
        // More often than an entry may fail.
        let attempts_max = u64::from(Settings::default().attempts_max);
        for _ in 0..attempts_max + 5 {
            stores.faults.next(Operation::Begin, Fault::Before);
        }
        let report = run(stores.builder(ownership).build().unwrap(), &table).await.unwrap();
        table.assert_once(10);
        assert_eq!(report.retried, 0, "{ownership:?}");
        assert!(report.reconnects > attempts_max, "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g9_a_crash_between_commit_and_ack_repeats_no_effect() {
    let (stores, table) = (Stores::with(12).await, Table::until(12));
    let acks = Faults::new();
    // The first one makes the checkpoint; after it nothing is acked.
    acks.next(Operation::Ack, Fault::Late(Duration::ZERO));
    acks.always(Operation::Ack, Fault::Hang);
    let stream = acks.clone().wrap(stores.stream.clone());
    let crashing = Consumer::builder(subscription(), stream, stores.store.clone()).build().unwrap();
    let rows = table.clone();
    let crashed = tokio::spawn(crashing.run_transactional(
        move |tx, delivery| {
            rows.insert(tx, &delivery);
            Box::pin(async { Ok::<_, HandlerError>(()) })
        },
        pending::<()>(),
    ));
    until("all rows are there", async || table.rows.lock().unwrap().len() == 12).await;
    crashed.abort();
    assert!(crashed.await.unwrap_err().is_cancelled());
    append(&stores.stream, 1).await;
    let after = Table { until: 13, full: Arc::default(), ..table.clone() };
    run(stores.builder(Ownership::Shared).build().unwrap(), &after).await.unwrap();
    table.assert_once(13);
    assert_eq!(table.handled.load(Ordering::Relaxed), 13, "what was settled is not handled again");
}

#[tokio::test(start_paused = true)]
async fn g4_the_transaction_of_a_fenced_owner_rolls_back() {
    for ownership in both() {
        let (stores, table) = (Stores::with(3).await, Table::until(3));
        let (entered, gate, first) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), AtomicBool::new(true));
        let (rows, stop) = (table.clone(), table.clone().full());
        let (inside, opened) = (Arc::clone(&entered), Arc::clone(&gate));
        let consumer = stores.builder(ownership).build().unwrap();
        let running = tokio::spawn(consumer.run_transactional(
            move |tx, delivery| {
                rows.insert(tx, &delivery);
                let stalls = first.swap(false, Ordering::Relaxed);
                let (inside, opened) = (Arc::clone(&inside), Arc::clone(&opened));
                Box::pin(async move {
                    if stalls {
                        inside.notify_one();
                        opened.notified().await;
                    }
                    Ok::<_, HandlerError>(())
                })
            },
            stop,
        ));
        entered.notified().await;
        // An operator sets the checkpoint to where it stands, which takes a new epoch.
        let reset = ResetCheckpoint::new(subscription(), crate::Position::at(EntryId::ZERO)).force(true);
        stores.store.reset(&reset).await.unwrap();
        gate.notify_one();
        running.await.unwrap().unwrap();
        table.assert_once(3);
        assert!(table.handled.load(Ordering::Relaxed) > 3, "{ownership:?}: the first one took no effect");
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_commits_in_strict_order_only() {
    let memory = Memory::new();
    let unordered = builder(&memory, Ownership::Exclusive).concurrency(2).build().unwrap();
    let handled = unordered
        .run_transactional(|_, _| Box::pin(async { Ok::<_, HandlerError>(()) }), pending::<()>())
        .await;
    assert_eq!(handled.unwrap_err().kind(), ErrorKind::Invalid);
    let keyed = builder(&memory, Ownership::Shared).keyed(2, |delivery| delivery.id()).build().unwrap();
    let handled = keyed
        .run_transactional_batches(|_, _| Box::pin(async { Ok::<_, HandlerError>(()) }), pending::<()>())
        .await;
    assert_eq!(handled.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_of_ones_own_settles_what_a_stream_yields() {
    use futures_util::StreamExt;

    for ownership in both() {
        let stores = Stores::with(3).await;
        let mut deliveries = stores.builder(ownership).build().unwrap().into_stream();
        for _ in 0..3 {
            let delivery = deliveries.next().await.unwrap().unwrap();
            let settlement = delivery.settlement().unwrap();
            let done = stores.store.commit(stores.store.begin().await.unwrap(), &settlement).await.unwrap();
            assert!(matches!(done, Committed::Done { .. }), "{ownership:?}");
            let again = stores.store.commit(stores.store.begin().await.unwrap(), &settlement).await.unwrap();
            assert_eq!(again, Committed::AlreadySettled(vec![delivery.id()]), "{ownership:?}");
            delivery.settle();
        }
        assert_eq!(deliveries.stop().await.unwrap().unsaved, 0);
        assert_eq!(watermark(&stores.store).await, Some(EntryId::new(3, 0)), "{ownership:?}");
    }
}
