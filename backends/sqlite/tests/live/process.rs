//! Dropped futures, killed processes.

use std::{
    collections::BTreeSet,
    future::Future,
    io::{BufRead, BufReader},
    pin::pin,
    process::{Child, Command, Stdio},
    task::Poll,
    time::Duration,
};

use highwater::{EntryId, Epoch, Position, backend::*, clock::Clock};
use highwater_sqlite::Sqlite;

use crate::support::*;

/// Polls a future this often, then drops it. Returns whether it was ready before.
pub(crate) async fn drop_after(polls: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        let ready = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if ready {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn g14_a_dropped_future_takes_effect_entirely_or_not_at_all() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let (orders, me) = (store.orders.clone(), name("me"));
    let batch = 300;
    for round in 0..120usize {
        let polls = round % 12;
        let entries = vec![NewEntry::new(fields(round as u64)); batch];
        drop_after(polls, store.sqlite.append(&Append::new(orders.stream.clone(), entries))).await;
        let read = ReadGroup::new(orders.clone(), me.clone(), 100).block(Duration::from_secs(60));
        drop_after(polls * 3, store.sqlite.read_group(&read)).await;
        let pending = ReadPending::new(orders.clone(), me.clone(), EntryId::ZERO, 20);
        drop_after(polls, store.sqlite.read_pending(&pending)).await;
        let pending = store.sqlite.read_pending(&pending).await.unwrap();
        let ids: Vec<_> = pending.iter().map(|entry| entry.id).collect();
        let settle = Settle::new(orders.clone(), ids.clone(), Epoch(0), me.clone()).count(true);
        drop_after(polls, store.sqlite.settle(&settle)).await;

        // First, since a call that was dropped may take effect between two looks, and both only rise.
        let checkpoint = store.sqlite.load(&orders).await.unwrap();
        let state = store.state().await;
        assert_eq!(state.len % batch as u64, 0, "a part of a batch was appended");
        assert_eq!(state.entries_added, Some(state.len));
        let group = state.group.unwrap();
        let after = ReadPending::new(orders.clone(), me.clone(), EntryId::ZERO, 100_000);
        let still = store.sqlite.read_pending(&after).await.unwrap();
        let still_asked = still.iter().filter(|entry| ids.contains(&entry.id)).count();
        assert!(still_asked == 0 || still_asked == ids.len(), "{still_asked} of {}", ids.len());
        if let (Some(checkpoint), Some(first)) = (checkpoint, group.first_pending) {
            assert!(checkpoint.position.watermark < first, "nothing pending is settled");
        }
    }
    // Nothing is lost on the way: what was delivered and not acked is pending, what was not delivered follows.
    let rest = ReadGroup::new(orders.clone(), me.clone(), usize::MAX);
    store.sqlite.read_group(&rest).await.unwrap();
    let pending = ReadPending::new(orders.clone(), me.clone(), EntryId::ZERO, usize::MAX);
    let pending: BTreeSet<_> =
        store.sqlite.read_pending(&pending).await.unwrap().iter().map(|e| e.id).collect();
    let position = store.sqlite.load(&orders).await.unwrap().map(|c| c.position).unwrap_or_default();
    let acked = store.sqlite.ack(&Ack::new(orders.clone(), vec![])).await.unwrap().position.unwrap();
    for id in store.read(EntryId::ZERO).await {
        assert_eq!(pending.contains(&id), !acked.settles(id), "{id} is pending or settled");
        assert!(!position.settles(id) || acked.settles(id), "the checkpoint is not ahead of the group");
    }
}

#[tokio::test]
async fn g14_a_dropped_open_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    for polls in 0..20 {
        let path = directory.path().join(format!("{polls}.db"));
        drop_after(polls, Sqlite::open(&path)).await;
        Sqlite::open(&path).await.unwrap();
    }
}

#[tokio::test]
async fn g14_a_dropped_wait_leaves_nothing_behind() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let clock = Clock::new();
    for n in 0..50 {
        let read = ReadGroup::new(store.orders.clone(), name("gone"), 10).block(Duration::from_secs(600));
        tokio::select! {
            biased;
            read = store.sqlite.read_group(&read) => panic!("{read:?}"),
            () = clock.sleep(Duration::from_millis(n % 5)) => {}
        }
    }
    store.append([1]).await;
    assert_eq!(store.read_group("me", 10).await, [1], "no reader that went away has taken it");
}

pub(crate) const CHILD: &str = "HIGHWATER_SQLITE_CHILD";

/// A process that dies with the test, however that ends.
pub(crate) struct Running(Child);

impl Running {
    fn start(path: std::path::PathBuf, stdout: Stdio) -> Self {
        Self::start_as("process::child", path, stdout)
    }

    /// Runs the test of this name.
    pub(crate) fn start_as(test: &str, path: std::path::PathBuf, stdout: Stdio) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, path).stdout(stdout);
        Self(command.spawn().unwrap())
    }

    /// What it prints.
    pub(crate) fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap)
    }

    pub(crate) fn wait(&mut self) -> bool {
        self.0.wait().unwrap().success()
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test by itself: what the process does that the tests below kill.
#[tokio::test]
async fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let sqlite = Sqlite::open(path).await.unwrap();
    let orders = highwater::Subscription::new("orders", "billing").unwrap();
    sqlite.ensure_group(&EnsureGroup::new(orders.clone(), &Position::default())).await.unwrap();
    // A process whose parent was killed must not go on for ever.
    let clock = Clock::new();
    while clock.elapsed() < Duration::from_secs(60) {
        let entries = vec![NewEntry::new(fields(1)); 10];
        sqlite.append(&Append::new(orders.stream.clone(), entries)).await.unwrap();
        let read = ReadGroup::new(orders.clone(), name("child"), 7);
        let ids = sqlite.read_group(&read).await.unwrap().iter().map(|d| d.id()).collect();
        let settle = Settle::new(orders.clone(), ids, Epoch(0), name("child")).count(true);
        let position = sqlite.settle(&settle).await.unwrap().position.unwrap();
        println!("settled {} {}", position.watermark, position.ordinal.unwrap());
    }
}

#[tokio::test]
async fn g3_what_a_killed_process_was_told_is_there() {
    let store = Store::new().await;
    for round in 1..=3 {
        let mut child = Running::start(store.path(), Stdio::piped());
        let mut lines = child.lines();
        // The test harness prints its own words in front of the first line.
        let mut settled =
            lines.by_ref().filter_map(|line| line.split_once("settled ").map(|(_, told)| told.to_owned()));
        let mut told = settled.nth(20 * round).unwrap();
        child.kill();
        told = settled.last().unwrap_or(told);

        let (watermark, ordinal) = told.split_once(' ').unwrap();
        let position = store.sqlite.load(&store.orders).await.unwrap().unwrap().position;
        assert!(
            position.watermark >= watermark.parse().unwrap(),
            "{} was told, {} is stored",
            watermark,
            position.watermark
        );
        assert!(position.ordinal >= Some(ordinal.parse().unwrap()));
        let state = store.state().await;
        assert_eq!((state.len % 10, state.entries_added), (0, Some(state.len)), "whole batches");
        // What it had in hand when it died goes to another.
        store.claim("parent", Duration::ZERO).await;
        let in_hand: Vec<_> = store.read_pending("parent").await;
        assert!(in_hand.len() <= 7, "{in_hand:?}");
        assert_eq!(store.state().await.group.unwrap().pending, in_hand.len() as u64);
        let request = ReadPending::new(store.orders.clone(), name("parent"), EntryId::ZERO, 100);
        let ids = store.sqlite.read_pending(&request).await.unwrap().iter().map(|e| e.id).collect();
        store.sqlite.ack(&Ack::new(store.orders.clone(), ids)).await.unwrap();
    }
}

#[tokio::test]
async fn a_process_that_waits_sees_what_another_one_appends() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    let read = Read::new(store.orders.stream.clone(), EntryId::ZERO, 1).block(Duration::from_secs(60));
    let start = async { Running::start(store.path(), Stdio::null()) };
    let (read, _child) = tokio::join!(soon(store.sqlite.read(&read)), start);
    assert_eq!(read.unwrap().len(), 1);
}

#[tokio::test]
async fn a_process_that_writes_all_the_time_does_not_starve_another() {
    let store = Store::new().await;
    let mut child = Running::start(store.path(), Stdio::null());
    until("the child works", || async { !store.read(EntryId::ZERO).await.is_empty() }).await;
    let clock = Clock::new();
    let mut longest = Duration::ZERO;
    let mut failed = None;
    for _ in 0..100 {
        let start = clock.elapsed();
        let request = Append::new(store.orders.stream.clone(), vec![NewEntry::new(fields(1))]);
        failed = failed.or(store.sqlite.append(&request).await.err());
        longest = longest.max(clock.elapsed() - start);
    }
    println!("100 appends took {:?}, the longest {longest:?}", clock.elapsed());
    child.kill();
    assert!(failed.is_none(), "{failed:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}
