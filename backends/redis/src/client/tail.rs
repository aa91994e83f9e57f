//! Wakes many readers by few blocked reads: one waits for up to [`STREAMS_MAX`] streams at once.
//!
//! Who waits has no connection. When a stream has grown, one reader of each group is woken, and one that finds something wakes
//! the next of its group, so that a crowd behind one group costs no more than what there is to read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use highwater::{Backoff, EntryId, GroupName, StreamName, clock::Clock};
use tokio::sync::{Notify, watch};

use super::{
    Connection, Driver, Fault, Value,
    dialer::within,
    link::CommandOf,
    pool::{Pool, lock},
    waiter::{Tail, Waiter},
};
use crate::{commands, reply};

/// So many streams are waited for by one connection: a server looks at all of them each time one has grown.
const STREAMS_MAX: usize = 64;

/// So many as long as there are no more than [`FEW`] in all: connections do not matter yet, and what a wake costs does.
const STREAMS_MAX_OF_FEW: usize = 16;

/// This many streams are few.
const FEW: usize = 128;

/// A read that has waited for this long answers with the first entry that came, and most likely with the only one.
const WAITED: Duration = Duration::from_millis(2);

/// The read is sent anew after this time, so that a dead connection is found.
const BLOCK: Duration = Duration::from_secs(5);

/// A stream that nobody has waited for in this time is left alone.
const IDLE: Duration = Duration::from_secs(15);

/// Between two reads, so that a stream that many write to does not cost a read for each entry.
const PAUSE: Duration = Duration::from_millis(1);

/// Streams that begin to be waited for at about the same time go into one new read.
const GATHER: Duration = Duration::from_millis(2);

/// All streams of a server that somebody waits for.
pub(crate) struct Tails<D: Driver> {
    streams: Mutex<Streams<D>>,
    clock: Clock,
    /// Changes, or is gone, when nobody is to wait any more.
    ended: watch::Sender<()>,
}

struct Streams<D: Driver> {
    by_name: HashMap<StreamName, Arc<Tail>>,
    /// The one that was started last, while it is not empty.
    newest: Option<Arc<Shard<D>>>,
}

/// Streams that one connection waits for.
struct Shard<D: Driver> {
    clock: Clock,
    pool: Weak<Pool<D>>,
    tails: Mutex<HashMap<StreamName, Arc<Tail>>>,
    /// Rings when a stream is new here.
    bell: Notify,
}

impl<D: Driver> Default for Tails<D> {
    fn default() -> Self {
        let streams = Streams { by_name: HashMap::new(), newest: None };
        Self { streams: Mutex::new(streams), clock: Clock::new(), ended: watch::Sender::new(()) }
    }
}

impl<D: Driver> Tails<D> {
    /// One more who reads a stream, within a group or by itself.
    pub(crate) fn waiter(pool: &Arc<Pool<D>>, stream: &StreamName, group: Option<&GroupName>) -> Waiter {
        let mut streams = lock(&pool.tails.streams);
        if let Some(tail) = streams.by_name.get(stream) {
            return Waiter::new(tail.clone(), group);
        }
        let most = if streams.by_name.len() < FEW { STREAMS_MAX_OF_FEW } else { STREAMS_MAX };
        let newest = streams.newest.take().filter(|shard| lock(&shard.tails).len() < most);
        let shard = newest.unwrap_or_else(|| Shard::start(pool));
        let tail = Arc::new(Tail::new(pool.tails.clock.clone()));
        streams.by_name.insert(stream.clone(), tail.clone());
        lock(&shard.tails).insert(stream.clone(), tail.clone());
        shard.bell.notify_one();
        streams.newest = Some(shard);
        Waiter::new(tail, group)
    }

    /// Ends all waiting.
    pub(crate) fn end(&self) {
        self.ended.send_replace(());
    }

    /// Leaves alone what nobody waits for, and says whether the shard has anything left. Nobody joins an empty one.
    fn retire(&self, shard: &Arc<Shard<D>>) -> bool {
        let mut streams = lock(&self.streams);
        let mut tails = lock(&shard.tails);
        tails.retain(|stream, tail| {
            // It is in two maps.
            let used = Arc::strong_count(tail) > 2 || !tail.is_idle(IDLE);
            if !used {
                streams.by_name.remove(stream);
            }
            used
        });
        if tails.is_empty() {
            streams.newest.take_if(|newest| Arc::ptr_eq(newest, shard));
        }
        !tails.is_empty()
    }

    /// What cannot be waited for: its readers find out why.
    fn forsake(&self, shard: &Shard<D>, stream: &StreamName) {
        let mut streams = lock(&self.streams);
        if let Some(tail) = lock(&shard.tails).remove(stream) {
            streams.by_name.remove(stream);
            tail.is_at(EntryId::MAX);
        }
    }
}

impl<D: Driver> Shard<D> {
    fn start(pool: &Arc<Pool<D>>) -> Arc<Self> {
        let (clock, tails) = (pool.tails.clock.clone(), Mutex::default());
        let shard = Arc::new(Self { clock, pool: Arc::downgrade(pool), tails, bell: Notify::new() });
        tokio::spawn(shard.clone().follow(pool.tails.ended.subscribe()));
        shard
    }

    /// Waits for growth, until nobody is left to be told.
    async fn follow(self: Arc<Self>, mut ended: watch::Receiver<()>) {
        let (mut connection, mut failed) = (None, 0);
        while let Some(pool) =
            self.pool.upgrade().filter(|pool| !pool.is_closed() && pool.tails.retire(&self))
        {
            // The pool is let go before the wait: who drops the backend is not held up.
            match self.round(pool, &mut connection, &mut ended).await {
                Ok(()) => {
                    failed = 0;
                    self.clock.sleep(PAUSE).await;
                }
                Err(fault) => {
                    failed += 1;
                    tracing::debug!(
                        ?fault,
                        failed,
                        "waiting for entries of many streams failed; will try again"
                    );
                    connection = None;
                    self.doubt();
                    self.clock.sleep(Backoff::default().delay(failed)).await;
                }
            }
        }
    }

    async fn round(
        &self,
        pool: Arc<Pool<D>>,
        kept: &mut Option<D::Connection>,
        ended: &mut watch::Receiver<()>,
    ) -> Result<(), Fault> {
        // What it rang for is among those that were not seen.
        let _: Option<()> = self.bell.notified().now_or_never();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => pool.connect().await?,
        };
        let limit = pool.response_timeout();
        let unseen = self.ends().filter_map(|(stream, last)| last.is_none().then_some(stream)).collect();
        self.look(&pool, &mut connection, unseen).await?;
        let ends: Vec<_> = self.ends().filter_map(|(stream, last)| Some((stream, last?))).collect();
        if ends.is_empty() {
            return Ok(());
        }
        let read: CommandOf<D> = commands::xread_first(&ends, BLOCK);
        drop(pool);
        let asked = self.clock.elapsed();
        let reply = tokio::select! {
            biased;
            _ = ended.changed() => return Ok(()),
            () = self.bell.notified() => {
                // The connection closes with the read, and the next read knows the new streams.
                self.clock.sleep(GATHER).await;
                return Ok(());
            }
            reply = within(BLOCK + limit, connection.send(&read), Fault::TimedOut) => reply?,
        };
        let grown = reply::streams(reply)?;
        let stream = |name: &[u8]| ends.iter().map(|(s, _)| s).find(|s| s.as_str().as_bytes() == name);
        let grown = grown.into_iter().filter_map(|(name, first)| Some((stream(&name)?.clone(), first)));
        if self.clock.elapsed().saturating_sub(asked) >= WAITED {
            // Should there be more, the next read answers at once, and then they are looked at.
            grown.for_each(|(stream, first)| self.is_at(&stream, first));
        } else {
            let Some(pool) = self.pool.upgrade() else { return Ok(()) };
            self.look(&pool, &mut connection, grown.map(|(stream, _)| stream).collect()).await?;
        }
        *kept = Some(connection);
        Ok(())
    }

    /// Looks where streams end, and wakes who waits for more than that.
    async fn look(
        &self,
        pool: &Pool<D>,
        connection: &mut D::Connection,
        streams: Vec<StreamName>,
    ) -> Result<(), Fault> {
        if streams.is_empty() {
            return Ok(());
        }
        let batch = D::Connection::batch(streams.iter().map(commands::xrevrange_last).collect());
        let replies = within(pool.response_timeout(), connection.send_all(&batch), Fault::TimedOut).await?;
        for (stream, reply) in streams.iter().zip(replies) {
            match reply.checked().map_err(Fault::Server).and_then(reply::last_id) {
                Ok(last) => self.is_at(stream, last),
                Err(fault) => {
                    tracing::debug!(?fault, %stream, "the end of the stream cannot be read");
                    pool.tails.forsake(self, stream);
                }
            }
        }
        Ok(())
    }

    fn is_at(&self, stream: &StreamName, last: EntryId) {
        if let Some(tail) = lock(&self.tails).get(stream) {
            tail.is_at(last);
        }
    }

    fn ends(&self) -> impl Iterator<Item = (StreamName, Option<EntryId>)> {
        let tails = lock(&self.tails);
        let ends: Vec<_> = tails.iter().map(|(name, tail)| (name.clone(), tail.end())).collect();
        ends.into_iter()
    }

    /// What was seen may not hold any more.
    fn doubt(&self) {
        lock(&self.tails).values().for_each(|tail| tail.doubt());
    }
}
