use std::time::Duration;

use highwater::{EntryId, ErrorKind, backend::*, clock::Clock};
use highwater_sqlite::Settings;

use crate::support::*;

const LONG: Duration = Duration::from_secs(600);

/// A poll interval at which only a wake-up within the value is fast.
fn hardly_polling() -> Settings {
    settings().poll_interval(Duration::from_secs(10))
}

fn blocked_read(store: &Store) -> Read {
    Read::new(store.orders.stream.clone(), EntryId::ZERO, 10).block(LONG)
}

fn blocked_group(store: &Store, consumer: &str) -> ReadGroup {
    ReadGroup::new(store.orders.clone(), name(consumer), 10).block(LONG)
}

#[tokio::test]
async fn an_append_wakes_blocked_readers_of_the_same_value_at_once() {
    let store = Store::with(&hardly_polling()).await;
    store.ensure_group(0).await;
    let (read, group) = (blocked_read(&store), blocked_group(&store, "a"));
    let clock = Clock::new();
    let (read, group, ()) = soon(async {
        tokio::join!(store.sqlite.read(&read), store.sqlite.read_group(&group), async {
            clock.sleep(Duration::from_millis(100)).await;
            store.append([1]).await;
        })
    })
    .await;
    assert!(clock.elapsed() < Duration::from_secs(5), "not by polling");
    assert_eq!((read.unwrap()[0].id, group.unwrap()[0].id()), (id(1), id(1)));
}

#[tokio::test]
async fn an_append_wakes_blocked_readers_of_other_processes() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let other = store.another().await;
    for n in 1..20 {
        let read = Read::new(store.orders.stream.clone(), id(n - 1), 10).block(LONG);
        let group = blocked_group(&store, "a");
        let (read, group, ()) = soon(async {
            tokio::join!(other.read(&read), other.read_group(&group), async {
                // At every point of the readers' way into their wait.
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
                store.append([n]).await;
            })
        })
        .await;
        assert_eq!((read.unwrap()[0].id, group.unwrap()[0].id()), (id(n), id(n)));
    }
}

#[tokio::test]
async fn each_entry_goes_to_one_of_many_blocked_consumers() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let other = store.another().await;
    let requests: Vec<_> = (0..20)
        .map(|n| ReadGroup::new(store.orders.clone(), name(&format!("c{n}")), 1).block(LONG))
        .collect();
    let reads = requests.iter().enumerate().map(|(n, request)| {
        let sqlite = if n % 2 == 0 { &store.sqlite } else { &other };
        sqlite.read_group(request)
    });
    let (reads, ()) = soon(async {
        tokio::join!(futures_util::future::join_all(reads), async {
            for n in 1..=20 {
                store.append([n]).await;
            }
        })
    })
    .await;
    let mut got: Vec<_> = reads.into_iter().map(|read| read.unwrap()[0].id().ms).collect();
    got.sort_unstable();
    assert_eq!(got, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_blocked_consumer_learns_that_its_group_or_stream_went() {
    for (by_another, whole_stream, back_again) in [
        (false, false, false),
        (false, true, false),
        (true, false, false),
        (true, true, false),
        (true, false, true),
    ] {
        let store = if by_another { Store::new().await } else { Store::with(&hardly_polling()).await };
        store.ensure_group(0).await;
        let other = store.another().await;
        let remover = if by_another { &other } else { &store.sqlite };
        let request = blocked_group(&store, "a");
        let clock = Clock::new();
        let (read, ()) = soon(async {
            tokio::join!(store.sqlite.read_group(&request), async {
                clock.sleep(Duration::from_millis(50)).await;
                let removal = if whole_stream {
                    Removal::Stream(store.orders.stream.clone())
                } else {
                    Removal::Group(store.orders.clone())
                };
                assert_eq!(remover.remove(&removal).await.unwrap(), 1);
                if back_again {
                    store.ensure_group(0).await;
                }
            })
        })
        .await;
        assert_eq!(kind(read), ErrorKind::Missing, "{by_another} {whole_stream} {back_again}");
    }
}

#[tokio::test]
async fn a_wait_ends_with_its_time() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let wait = Duration::from_millis(30);
    let clock = Clock::new();
    let _ = clock.elapsed();
    assert!(soon(store.sqlite.read(&blocked_read(&store).block(wait))).await.unwrap().is_empty());
    assert!(soon(store.sqlite.read_group(&blocked_group(&store, "a").block(wait))).await.unwrap().is_empty());
    assert!(clock.elapsed() >= 2 * wait);
    assert!(soon(store.sqlite.read(&blocked_read(&store).block(Duration::ZERO))).await.unwrap().is_empty());
}

#[tokio::test]
async fn closing_ends_blocked_reads_and_refuses_later_calls() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let (read, group) = (blocked_read(&store), blocked_group(&store, "a"));
    let clock = Clock::new();
    let (read, group, ()) = soon(async {
        tokio::join!(store.sqlite.read(&read), store.sqlite.read_group(&group), async {
            clock.sleep(Duration::from_millis(50)).await;
            StreamBackend::close(&store.sqlite).await;
        })
    })
    .await;
    assert_eq!((kind(read), kind(group)), (ErrorKind::Closed, ErrorKind::Closed));
    assert_eq!(kind(store.sqlite.load(&store.orders).await), ErrorKind::Closed);
    assert_eq!(
        kind(store.sqlite.trim(&Trim::new(store.orders.stream.clone(), TrimLimit::Len(0))).await),
        ErrorKind::Closed
    );
    soon(CheckpointBackend::close(&store.sqlite)).await;
    assert!(store.another().await.inspect(&Inspect::subscription(&store.orders)).await.unwrap().is_some());
}

#[tokio::test]
async fn dropping_the_last_handle_lets_go_of_the_file() {
    let store = Store::new().await;
    store.append([1]).await;
    let wal = store.path().with_extension("db-wal");
    assert!(wal.exists());
    let Store { sqlite, .. } = &store;
    let clone = sqlite.clone();
    drop(clone);
    store.append([2]).await;
    let (path, directory) = (store.path(), store.into_directory());
    // SQLite removes the log when the last connection goes.
    until("the connections are gone", || async { !wal.exists() }).await;
    assert!(path.exists());
    drop(directory);
}
