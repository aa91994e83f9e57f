//! A lane runs the user's handler over deliveries, one after the other, and reports each.

use std::{
    any::Any,
    future::{poll_fn, ready},
    mem,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::Notify;

use super::{
    BatchHandler, Handler, HandlerError,
    lease::{self, Lease, Looks},
    machine::{Failure, Finished, Slot},
};
use crate::{Delivery, EntryId, Epoch, Position, Result, clock::Clock};

/// Lanes that have ended at once so often in a row are tried without a task of their own,
const TRUSTED: u32 = 16;
/// unless one of them took longer than this.
const SOON: Duration = Duration::from_millis(1);

/// Where lanes put what they have finished. The driver takes all of it at once, so under load it wakes once for many.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    finished: Mutex<Vec<Finished<HandlerError>>>,
    notify: Notify,
    halt: AtomicBool,
    /// How many of the last lanes in a row were quick.
    quick: AtomicU32,
}

impl Desk {
    pub(crate) fn put(&self, finished: Finished<HandlerError>) {
        let mut desk = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        let first = desk.is_empty();
        desk.push(finished);
        drop(desk);
        if first {
            self.notify.notify_one();
        }
    }

    /// All that is finished, once there is something.
    pub(crate) async fn take(&self) -> Vec<Finished<HandlerError>> {
        loop {
            let taken = std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }

    /// Polls a lane once, and says whether it has ended. One that did, and was quick, is likely followed by another one.
    pub(crate) fn at_once(&self, clock: &Clock, lane: &mut BoxFuture<'static, ()>) -> bool {
        let began = clock.elapsed();
        let ended = lane.now_or_never().is_some();
        if ended && clock.elapsed().saturating_sub(began) <= SOON {
            let quick = self.quick.load(Ordering::Relaxed);
            self.quick.store(quick.saturating_add(1), Ordering::Relaxed);
        } else {
            self.quick.store(0, Ordering::Relaxed);
        }
        ended
    }

    /// Whether so many in a row were quick that the next one is trusted to be.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= TRUSTED
    }

    /// Makes lanes give back what they have not started, or not any more.
    pub(crate) fn halt(&self, halt: bool) {
        self.halt.store(halt, Ordering::Relaxed);
    }

    pub(crate) fn halted(&self) -> bool {
        self.halt.load(Ordering::Relaxed)
    }
}

/// What a lane is to handle.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) slot: Slot,
    pub(crate) deliveries: Vec<Delivery>,
    /// The epoch that they belong to.
    pub(crate) epoch: Epoch,
    /// Exclusive, in strict order, for lanes that settle by themselves: how far the subscription is settled with them.
    pub(crate) position: Option<Position>,
}

/// Runs a user's handler, whatever its kind.
pub(crate) trait Lanes: Send + Sync + 'static {
    /// Whether a lane settles by itself, and needs to know the position that this leads to.
    fn settles(&self) -> bool;

    /// Which of these were settled in a transaction already, though they come again.
    fn settled(&self, _: Epoch, _: Vec<EntryId>) -> BoxFuture<'_, Result<Vec<EntryId>>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    /// Handles a chunk and reports to the desk. The last report is [`Finished::Idle`].
    fn run(self: Arc<Self>, chunk: Chunk, desk: Arc<Desk>) -> BoxFuture<'static, ()>;
}

/// When a handler may be called, and how long a call may take.
#[derive(Debug, Clone)]
pub(crate) struct CallLimit {
    pub(crate) clock: Clock,
    pub(crate) limit: Option<Duration>,
    pub(crate) lease: Arc<Lease>,
}

/// One call for each delivery.
pub(crate) struct PerEntry<H>(pub(crate) H, pub(crate) CallLimit);

impl<H: Handler> Lanes for PerEntry<H> {
    fn settles(&self) -> bool {
        false
    }

    fn run(self: Arc<Self>, chunk: Chunk, desk: Arc<Desk>) -> BoxFuture<'static, ()> {
        let Chunk { slot, deliveries: chunk, .. } = chunk;
        Box::pin(async move {
            let mut chunk = chunk.into_iter();
            let mut done = Unreported { desk: &desk, ids: Vec::new(), bytes: 0 };
            let mut looks = Looks::new();
            loop {
                if looks.are_due() {
                    done.report();
                    looks.before_call(&self.1.lease).await;
                }
                if desk.halted() {
                    break;
                }
                let Some(delivery) = chunk.next() else { break };
                // The call is within, for a handler may panic before it returns its future.
                let call = async { self.0.handle(delivery.clone()).await };
                match done.before(self.1.caught(call)).await {
                    Ok(()) => done.add(&delivery),
                    Err(error) => {
                        done.report();
                        let rest = chunk.by_ref().collect();
                        let failure = Failure::new(error, false);
                        desk.put(Finished::Failed { slot, deliveries: vec![delivery], failure, rest });
                        break;
                    }
                }
                // A handler that never waits would keep the thread from everything else.
                done.before(tokio::task::coop::consume_budget()).await;
            }
            done.report();
            desk.put(Finished::Idle { slot, rest: chunk.collect() });
        })
    }
}

/// What a lane has handled and not reported. Nothing is left here while it waits: it may be dropped there.
struct Unreported<'a> {
    desk: &'a Desk,
    ids: Vec<EntryId>,
    bytes: u64,
}

impl Unreported<'_> {
    fn add(&mut self, delivery: &Delivery) {
        if self.ids.is_empty() {
            // A stretch of calls takes one allocation.
            self.ids.reserve(lease::STRETCH_MAX as usize);
        }
        self.ids.push(delivery.id());
        self.bytes += delivery.fields().size() as u64;
    }

    fn report(&mut self) {
        if !self.ids.is_empty() {
            let (ids, bytes) = (mem::take(&mut self.ids), mem::take(&mut self.bytes));
            self.desk.put(Finished::Done { ids, bytes });
        }
    }

    /// Waits for this. What is handled is reported first, unless it is ready at once.
    async fn before<T>(&mut self, ready: impl Future<Output = T>) -> T {
        let mut ready = pin!(ready);
        poll_fn(|context| {
            let polled = ready.as_mut().poll(context);
            if polled.is_pending() {
                self.report();
            }
            polled
        })
        .await
    }
}

/// One call for the whole chunk.
pub(crate) struct PerBatch<H>(pub(crate) H, pub(crate) CallLimit);

impl<H: BatchHandler> Lanes for PerBatch<H> {
    fn settles(&self) -> bool {
        false
    }

    fn run(self: Arc<Self>, chunk: Chunk, desk: Arc<Desk>) -> BoxFuture<'static, ()> {
        let Chunk { slot, deliveries: chunk, .. } = chunk;
        Box::pin(async move {
            self.1.lease.stands().await;
            if desk.halted() {
                desk.put(Finished::Idle { slot, rest: chunk });
                return;
            }
            match self.1.caught(async { self.0.handle_batch(chunk.clone()).await }).await {
                Ok(()) => desk.put(Finished::done(&chunk)),
                Err(error) => {
                    let failure = Failure::new(error, false);
                    desk.put(Finished::Failed { slot, deliveries: chunk, failure, rest: Vec::new() });
                }
            }
            desk.put(Finished::Idle { slot, rest: Vec::new() });
        })
    }
}

impl CallLimit {
    /// The handler's result; a panic is an error like another, and so is a call that takes too long.
    pub(crate) async fn caught(
        &self,
        handling: impl Future<Output = Result<(), HandlerError>>,
    ) -> Result<(), HandlerError> {
        let caught = AssertUnwindSafe(handling).catch_unwind();
        let ended = match self.limit {
            None => caught.await,
            Some(limit) => tokio::select! {
                biased;
                ended = caught => ended,
                () = self.clock.sleep(limit) => return Err(HandlerError::timed_out(limit)),
            },
        };
        ended.unwrap_or_else(|panic| Err(HandlerError::panicked(panic_message(&*panic))))
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
