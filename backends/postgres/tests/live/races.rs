//! Many at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use highwater::{EntryId, Epoch, ErrorKind, Position, Retry, SettledAhead, backend::*};
use highwater_postgres::{Postgres, Settling};

use crate::store::*;

/// Handles an entry until it is settled, by this call or another.
async fn settle(postgres: &Postgres, settlement: &Settlement) -> Committed {
    loop {
        match handle(postgres, settlement).await {
            Ok(committed) => return committed,
            Err(error) => assert_eq!(error.retry(), Retry::Now, "{error:?}"),
        }
    }
}

/// Consumers share a group: each entry is delivered to several of them, while the watermark rises behind them and what it has
/// passed is pruned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_effects_are_written_once_whoever_settles_advances_and_prunes() {
    const ENTRIES: u64 = 240;
    let store = Store::new().await;
    let settled: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let mut consumers = Vec::new();
    for n in 0..4u64 {
        let (postgres, orders, settled) = (store.another().await, store.orders.clone(), Arc::clone(&settled));
        consumers.push(tokio::spawn(async move {
            for entry in 1..=ENTRIES {
                // Each delivers what another may have, sooner or later.
                let entry = if (entry + n) % 3 == 0 { entry.saturating_sub(7).max(1) } else { entry };
                let committed = settle(&postgres, &each(&orders, 0, [entry])).await;
                let first = committed == Committed::done(None);
                let known = !settled.lock().unwrap().insert(entry);
                assert!(first || known || matches!(committed, Committed::AlreadySettled(_)));
                let position = {
                    let settled = settled.lock().unwrap();
                    let watermark = (1..).find(|id| !settled.contains(id)).unwrap() - 1;
                    let top = settled.last().copied().unwrap_or(0);
                    let holes = (watermark + 1..top).filter(|id| !settled.contains(id)).map(id);
                    let ahead = SettledAhead::new(id(top), holes.collect::<Vec<_>>());
                    Position::at(id(watermark)).with_ahead(ahead)
                };
                postgres
                    .advance(&Advance::new(orders.clone(), Epoch(0), position, name("me")))
                    .await
                    .unwrap();
            }
        }));
    }
    let observer = {
        let (postgres, orders, done) = (store.another().await, store.orders.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut seen = EntryId::ZERO;
            while !done.load(Ordering::Acquire) {
                let now =
                    postgres.load(&orders).await.unwrap().map_or(EntryId::ZERO, |c| c.position.watermark);
                assert!(now >= seen, "it moved back from {seen} to {now}");
                seen = now;
            }
        })
    };
    for consumer in consumers {
        consumer.await.unwrap();
    }
    done.store(true, Ordering::Release);
    observer.await.unwrap();
    for entry in 1..=ENTRIES {
        settle(&store.postgres, &store.each(0, [entry])).await;
    }
    let twice = "SELECT count(*), count(DISTINCT entry) FROM effects";
    assert_eq!(store.sql(twice).await, format!("{ENTRIES}|{ENTRIES}"));
}

/// Owners follow each other, and each goes on in the belief that it still owns the subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_effects_are_written_once_by_owners_that_follow_each_other() {
    const ENTRIES: u64 = 120;
    let store = Store::new().await;
    let taken = Arc::new(AtomicU64::new(0));
    let owner = |n: u64, postgres: Postgres| {
        let (orders, taken) = (store.orders.clone(), Arc::clone(&taken));
        async move {
            'owned: loop {
                // Its lease has always run out, and so do those of the others.
                let request = Acquire::new(orders.clone(), name(&format!("o{n}")), std::time::Duration::ZERO);
                let grant = match postgres.acquire(&request).await {
                    Ok(Acquired::Owned(grant)) => grant,
                    other => panic!("{other:?}"),
                };
                taken.fetch_add(1, Ordering::Relaxed);
                let mut at = grant.position.map_or(0, |position| position.watermark.ms);
                loop {
                    if at >= ENTRIES {
                        return;
                    }
                    let to = (at + 3).min(ENTRIES);
                    let settlement = each(&orders, grant.epoch.0, at + 1..=to).up_to(Position::at(id(to)));
                    match handle(&postgres, &settlement).await {
                        Ok(Committed::Done { .. }) => at = to,
                        Ok(before) => panic!("under its epoch nobody else settles: {before:?}"),
                        Err(error) if error.kind() == ErrorKind::Fenced => continue 'owned,
                        Err(error) => assert_eq!(error.retry(), Retry::Now, "{error:?}"),
                    }
                }
            }
        }
    };
    let mut owners = Vec::new();
    for n in 0..3 {
        owners.push(tokio::spawn(owner(n, store.another().await)));
    }
    for owner in owners {
        owner.await.unwrap();
    }
    println!("{} owners", taken.load(Ordering::Relaxed));
    assert_eq!(store.sql("SELECT count(*), count(DISTINCT entry) FROM effects").await, "120|120");
    assert_eq!(store.watermark().await, Some(id(ENTRIES)));
}

/// All begin where there is no record, side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_concurrent_cold_starts_settle_each_entry_once() {
    for round in 0..5 {
        let store = Store::new().await;
        let begun: Vec<_> = (0..8)
            .map(|n| {
                let (postgres, orders) = (store.postgres.clone(), store.orders.clone());
                tokio::spawn(async move {
                    if (n + round) % 4 == 0 {
                        let position = Position::default();
                        let advance = Advance::new(orders, Epoch(0), position, name("me"));
                        return postgres.advance(&advance).await.map(|_| 0).unwrap();
                    }
                    usize::from(settle(&postgres, &each(&orders, 0, [1])).await == Committed::done(None))
                })
            })
            .collect();
        let mut first = 0;
        for task in begun {
            first += task.await.unwrap();
        }
        assert_eq!((first, store.effects().await.as_str()), (1, "1"));
    }
}

/// A reset waits for those that have settled and not committed, and forgets them too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_reset_forgets_what_was_about_to_be_settled() {
    let store = Store::new().await;
    store.handle(&store.each(0, [1])).await.unwrap();
    let mut tx = store.pool.begin().await.unwrap();
    let settled = store.postgres.settle_in(&mut tx, &store.each(0, [2])).await.unwrap();
    let reset = {
        let (postgres, orders) = (store.postgres.clone(), store.orders.clone());
        tokio::spawn(async move {
            postgres.reset(&ResetCheckpoint::new(orders, Position::default())).await.unwrap()
        })
    };
    crate::support::eventually("it waits", std::time::Duration::from_secs(10), async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        store.sql(waiting).await == "1"
    })
    .await;
    tx.commit().await.unwrap();
    drop(settled);
    let epoch = reset.await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM highwater.settled").await, "0");
    assert_eq!(store.handle(&store.each(epoch.0, [1, 2])).await.unwrap(), Committed::done(None));
}

/// Those that settle share the record, so that there may never be an instant without one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g16_an_advance_gets_its_turn_among_those_that_settle() {
    let store = Store::new().await;
    let done = Arc::new(AtomicBool::new(false));
    let pool = pool(&store.url, 16);
    let settling = (1..=16u64).map(|nth| {
        let (pool, orders, done) = (pool.clone(), store.orders.clone(), Arc::clone(&done));
        let postgres = store.postgres.clone();
        tokio::spawn(async move {
            for n in 1.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let mut tx = pool.begin().await.unwrap();
                let request = each(&orders, 0, [nth * 1_000_000 + n]);
                let Ok(Settling::Provisional(_)) = postgres.settle_in(&mut tx, &request).await else {
                    panic!("nobody else settles it");
                };
                // As long as a slow commit takes.
                tokio::time::sleep(Duration::from_millis(20)).await;
                tx.commit().await.unwrap();
            }
        })
    });
    let settling: Vec<_> = settling.collect();
    // Whoever has settled an entry by itself prunes when it advances.
    settle(&store.postgres, &each(&store.orders, 0, [1])).await;
    for n in 1..=5 {
        let advance = Advance::new(store.orders.clone(), Epoch(0), Position::at(id(n)), name("me"));
        store
            .postgres
            .advance(&advance)
            .await
            .expect("it waits for those that came before, and for no others");
    }
    done.store(true, Ordering::Relaxed);
    for task in settling {
        task.await.unwrap();
    }
}
