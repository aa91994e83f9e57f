//! Handlers that look at each payload, count, and say when all came.

use std::{
    future::{Ready, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::StreamExt;
use highwater::{Deliveries, Delivery, Report};
use tokio::sync::Notify;

use crate::{
    Result,
    env::{Env, FIELD},
};

/// Counts entries.
#[derive(Debug, Clone)]
pub struct Count(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    expected: u64,
    payload: usize,
    seen: AtomicU64,
    all: Notify,
}

impl Count {
    pub fn new(env: &Env) -> Self {
        Self::of(env, env.entries)
    }

    /// So many of them.
    pub fn of(env: &Env, expected: u64) -> Self {
        let payload = env.payload;
        Self(Arc::new(Inner { expected, payload, seen: AtomicU64::new(0), all: Notify::new() }))
    }

    pub fn per_entry(&self) -> impl Fn(Delivery) -> Ready<io::Result<()>> + use<> {
        let count = self.clone();
        move |delivery| ready(count.take(&[delivery]))
    }

    pub fn per_batch(&self) -> impl Fn(Vec<Delivery>) -> Ready<io::Result<()>> + use<> {
        let count = self.clone();
        move |batch| ready(count.take(&batch))
    }

    pub async fn by_hand(self, mut deliveries: Deliveries) -> Result<Report> {
        while self.0.seen.load(Ordering::Relaxed) < self.0.expected {
            let delivery = deliveries.next().await.ok_or("the stream of deliveries has ended")??;
            self.take(std::slice::from_ref(&*delivery))?;
            delivery.settle();
        }
        Ok(deliveries.stop().await?)
    }

    /// Resolves when all came.
    pub fn all(&self) -> impl Future<Output = ()> + Send + use<> {
        let count = self.clone();
        async move { count.0.all.notified().await }
    }

    pub fn take(&self, batch: &[Delivery]) -> io::Result<()> {
        let right = |delivery: &Delivery| {
            delivery.fields().get(FIELD).is_some_and(|payload| payload.len() == self.0.payload)
        };
        if !batch.iter().all(right) {
            return Err(io::Error::other("an entry has another payload"));
        }
        let more = batch.len() as u64;
        if self.0.seen.fetch_add(more, Ordering::Relaxed) + more >= self.0.expected {
            self.0.all.notify_one();
        }
        Ok(())
    }

    /// Each must have come once: nothing fails here.
    pub fn check(&self) -> Result {
        let (seen, expected) = (self.0.seen.load(Ordering::Relaxed), self.0.expected);
        if seen == expected { Ok(()) } else { Err(format!("{seen} deliveries of {expected} entries").into()) }
    }
}
