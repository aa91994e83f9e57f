//! G14: every public async method is dropped at every await that it has, and what it says of that is held against it.
//!
//! A round makes a place of its own, makes the call through a [`Cut`], and looks at what is there then. Rounds are repeated, each
//! with one poll more before the drop, until the call ends before it is dropped.

mod checkpoints;
mod clients;
mod consumers;
mod letters;
mod methods;
mod streams;
#[cfg(feature = "conformance")]
mod transactions;

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

use highwater::{
    Memory, Result,
    layer::{Attempt, Call, Layer, Layered},
};
use highwater_redis::{Fred, Redis, Settings};
use highwater_sqlite::Sqlite;

use crate::support::shared_redis_url;

/// No call of ours waits so often.
const POLLS_MAX: usize = 2_000;

/// Drops one future at one of its awaits.
pub struct Cut {
    polls: usize,
    dropped: Cell<bool>,
}

impl Cut {
    /// What the future ends with, unless it is dropped: when it waits for the time that this cut is for.
    pub async fn call<F: Future>(&self, future: F) -> Option<F::Output> {
        // In a block, so that it is dropped before anybody looks.
        let output = {
            let mut future = pin!(future);
            let mut left = self.polls;
            poll_fn(|context: &mut Context<'_>| match future.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        };
        self.dropped.set(output.is_none());
        output
    }
}

/// Repeats the round, with the call dropped at the first await, the second, and so on, until it was not dropped. Returns at how
/// many it was.
pub async fn at_every_await(what: &str, mut round: impl AsyncFnMut(&Cut)) -> usize {
    for polls in 0..POLLS_MAX {
        let cut = Cut { polls, dropped: Cell::new(false) };
        round(&cut).await;
        if !cut.dropped.get() {
            return polls;
        }
    }
    panic!("{what} did not end within {POLLS_MAX} polls");
}

/// Awaits before the effect and behind it, where a backend has none of its own.
#[derive(Debug)]
pub struct Waiting;

impl Layer for Waiting {
    async fn call<'a, T: Send + 'a>(&'a self, _: Call, attempt: Attempt<'a, T>) -> Result<T> {
        tokio::task::yield_now().await;
        let result = attempt().await;
        tokio::task::yield_now().await;
        result
    }
}

pub fn memory() -> Layered<Memory, Waiting> {
    Waiting.wrap(Memory::new())
}

pub async fn redis() -> Redis {
    Redis::connect(shared_redis_url()).await.expect("the server answers")
}

pub async fn fred() -> Redis<Fred> {
    Redis::open(Settings::new(shared_redis_url())).await.expect("the server answers")
}

/// A file of its own, and the folder that keeps it.
pub async fn sqlite() -> (Sqlite, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sqlite = Sqlite::open(folder.path().join("cancel.db")).await.expect("the file opens");
    (sqlite, folder)
}

#[tokio::test]
async fn a_call_is_dropped_at_each_of_its_awaits() {
    let mut reached = Vec::new();
    let awaits = at_every_await("three awaits", async |cut| {
        let done = Cell::new(0);
        let ended = cut.call(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
                done.set(done.get() + 1);
            }
        });
        let ended = ended.await.is_some();
        reached.push((done.get(), ended));
    });
    assert_eq!(awaits.await, 3);
    assert_eq!(reached, [(0, false), (1, false), (2, false), (3, true)]);
}
