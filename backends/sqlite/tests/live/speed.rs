//! How fast it is; run by hand: `cargo test --release -p highwater-sqlite speed -- --ignored --nocapture`.

use std::time::Duration;

use highwater::{EntryId, Epoch, Fields, backend::*, clock::Clock};
use highwater_sqlite::Synchronous;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and asserts nothing that a busy machine could not break"]
async fn speed() {
    for synchronous in [Synchronous::Full, Synchronous::Normal] {
        let store = Store::with(&settings().synchronous(synchronous)).await;
        store.ensure_group(0).await;
        println!("{synchronous:?}");
        let (orders, me) = (store.orders.clone(), name("me"));
        let payload: Fields = [("kind", vec![b'x'; 16]), ("payload", vec![b'y'; 180])].into_iter().collect();
        let report = |what, count: u64, took: Duration| {
            println!("{what:>24}: {:>9.0}/s", count as f64 / took.as_secs_f64());
        };
        const BATCHES: u64 = 200;
        let append = Append::new(orders.stream.clone(), vec![NewEntry::new(payload); 1000]);
        let mut clock = Clock::new();
        let _ = clock.elapsed();
        for _ in 0..BATCHES {
            store.sqlite.append(&append).await.unwrap();
        }
        report("append by 1000", BATCHES * 1000, clock.elapsed());

        clock = Clock::new();
        let _ = clock.elapsed();
        let mut after = EntryId::ZERO;
        while let Some(last) =
            store.sqlite.read(&Read::new(orders.stream.clone(), after, 1000)).await.unwrap().last()
        {
            after = last.id;
        }
        report("read by 1000", BATCHES * 1000, clock.elapsed());

        let (mut reading, mut settling) = (Duration::ZERO, Duration::ZERO);
        clock = Clock::new();
        let _ = clock.elapsed();
        loop {
            let start = clock.elapsed();
            let read = ReadGroup::new(orders.clone(), me.clone(), 1000);
            let ids: Vec<_> = store.sqlite.read_group(&read).await.unwrap().iter().map(|d| d.id()).collect();
            let middle = clock.elapsed();
            if ids.is_empty() {
                break;
            }
            let settle = Settle::new(orders.clone(), ids, Epoch(0), me.clone()).count(true);
            store.sqlite.settle(&settle).await.unwrap();
            reading += middle - start;
            settling += clock.elapsed() - middle;
        }
        report("read_group by 1000", BATCHES * 1000, reading);
        report("settle by 1000", BATCHES * 1000, settling);

        let one = Append::new(orders.stream.clone(), vec![NewEntry::new(fields(1))]);
        clock = Clock::new();
        let _ = clock.elapsed();
        for _ in 0..500 {
            store.sqlite.append(&one).await.unwrap();
        }
        report("append one by one", 500, clock.elapsed());
        clock = Clock::new();
        let _ = clock.elapsed();
        let many = (0..5000).map(|_| store.sqlite.append(&one));
        futures_util::future::join_all(many).await;
        report("append one, side by side", 5000, clock.elapsed());
        let read = ReadGroup::new(orders.clone(), me.clone(), 5000);
        let ids: Vec<_> = store.sqlite.read_group(&read).await.unwrap().iter().map(|d| d.id()).collect();
        clock = Clock::new();
        let _ = clock.elapsed();
        let settles: Vec<_> =
            ids.iter().map(|&id| Settle::new(orders.clone(), vec![id], Epoch(0), me.clone())).collect();
        futures_util::future::join_all(settles.iter().map(|settle| store.sqlite.settle(settle))).await;
        report("settle one, side by side", ids.len() as u64, clock.elapsed());
    }
}
