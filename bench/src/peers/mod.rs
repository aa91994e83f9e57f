//! What one would pick instead, each as its documentation says that it is fastest and safe, and as it is by default.

mod apalis;
mod omniqueue;
mod rust_stream;
mod sea;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::{Result, list::Scenario};

/// Those that read a stream to its end.
pub fn throughput() -> Vec<Scenario> {
    [sea::throughput(), rust_stream::throughput(), omniqueue::throughput(), apalis::throughput()]
        .into_iter()
        .flatten()
        .collect()
}

/// Those that wait for entries, many of them on one stream.
pub fn late(name: &str) -> Vec<Scenario> {
    sea::late(name)
}

/// Those of which many compete in one group.
pub fn crowd() -> Vec<Scenario> {
    sea::crowd()
}

/// Counts what handlers saw, and says when that is all.
#[derive(Debug, Default)]
struct Seen {
    entries: AtomicU64,
    expected: AtomicU64,
    all: Notify,
}

impl Seen {
    fn expect(&self, entries: u64) {
        self.expected.store(entries, Ordering::Relaxed);
    }

    fn more(&self, entries: u64) {
        if self.entries.fetch_add(entries, Ordering::Relaxed) + entries
            == self.expected.load(Ordering::Relaxed)
        {
            self.all.notify_one();
        }
    }

    fn check(&self) -> Result {
        let (seen, expected) = (self.entries.load(Ordering::Relaxed), self.expected.load(Ordering::Relaxed));
        if seen == expected { Ok(()) } else { Err(format!("{seen} of {expected} came").into()) }
    }
}

/// A payload of JSON that has so many bytes in all.
fn json(payload: usize) -> String {
    format!("{{\"d\":\"{}\"}}", "x".repeat(payload.saturating_sub(8)))
}

type Shared = Arc<Seen>;
