//! Waiting for a stream to change: at once within this value, by polling across processes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use highwater::{Result, StreamName, clock::Clock};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::{Notify, watch};

use crate::{db::until_closed, error, schema::Options};

/// Who is blocked on which stream.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    streams: Mutex<HashMap<StreamName, watch::Sender<()>>>,
    /// Somebody is blocked: the poller may have to start.
    blocked: Notify,
}

impl Wakeups {
    pub(crate) fn wake(&self, streams: Vec<StreamName>) {
        if streams.is_empty() {
            return;
        }
        let waiting = self.waiting();
        for sender in streams.iter().filter_map(|stream| waiting.get(stream)) {
            sender.send_replace(());
        }
    }

    fn wake_all(&self) {
        for sender in self.waiting().values() {
            sender.send_replace(());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<StreamName, watch::Sender<()>>> {
        // Each change of the map is one call, so that a panic cannot leave it half done.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait for changes of one stream, until a deadline.
pub(crate) struct Wait {
    blocked: Option<Blocked>,
    closed: watch::Receiver<bool>,
}

struct Blocked {
    changed: watch::Receiver<()>,
    wakeups: Arc<Wakeups>,
    stream: StreamName,
    clock: Clock,
    until: Duration,
}

impl Wait {
    pub(crate) fn new(
        wakeups: &Arc<Wakeups>,
        stream: &StreamName,
        block: Option<Duration>,
        closed: watch::Receiver<bool>,
    ) -> Self {
        let blocked = block.filter(|block| !block.is_zero()).map(|block| {
            let changed = wakeups.waiting().entry(stream.clone()).or_default().subscribe();
            wakeups.blocked.notify_one();
            let clock = Clock::new();
            let until = clock.elapsed().saturating_add(block);
            Blocked { changed, wakeups: wakeups.clone(), stream: stream.clone(), clock, until }
        });
        Self { blocked, closed }
    }

    /// Waits for a change since the wait was created or since the last change. `false`: the time is over.
    pub(crate) async fn changed(&mut self) -> Result<bool> {
        let Some(blocked) = &mut self.blocked else { return Ok(false) };
        tokio::select! {
            biased;
            () = until_closed(&mut self.closed) => Err(error::closed()),
            changed = blocked.changed.changed() => Ok(changed.is_ok()),
            () = blocked.clock.sleep_until(blocked.until) => Ok(false),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let mut waiting = self.wakeups.waiting();
        // Under the lock that subscribes, so that nobody joins in between.
        if waiting.get(&self.stream).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.stream);
        }
    }
}

/// What a blocked reader waits for: entries, or the end of its stream or group.
type State = (i64, i64, i64, i64);

/// Looks for what other processes wrote, while anybody is blocked.
pub(crate) async fn poll(
    options: Options,
    interval: Duration,
    wakeups: Arc<Wakeups>,
    mut closed: watch::Receiver<bool>,
) {
    let clock = Clock::new();
    let mut poller = Poller {
        options: options.create_if_missing(false),
        conn: None,
        known: HashMap::new(),
        version: None,
    };
    loop {
        let idle = wakeups.waiting().is_empty();
        tokio::select! {
            biased;
            () = until_closed(&mut closed) => break,
            () = wakeups.blocked.notified(), if idle => {
                poller.known.clear();
                poller.version = None;
            }
            () = clock.sleep(interval), if !idle => {
                if let Err(cause) = poller.look(&wakeups).await {
                    // The blocked readers find out for themselves, and tell their callers.
                    tracing::debug!(%cause, "cannot look for changes");
                    poller.conn = None;
                    wakeups.wake_all();
                }
            }
        }
    }
    if let Some(conn) = poller.conn {
        let _ = sqlx::Connection::close(conn).await;
    }
}

struct Poller {
    options: Options,
    conn: Option<SqliteConnection>,
    /// The states of the streams that somebody is blocked on, as they were at the last look.
    known: HashMap<String, State>,
    /// Changes when another connection commits.
    version: Option<i64>,
}

impl Poller {
    async fn look(&mut self, wakeups: &Wakeups) -> Result<(), sqlx::Error> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                self.version = None;
                self.options.connect().await?
            }
        };
        let conn = self.conn.insert(conn);
        let version = Some(sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *conn).await?);
        if self.version == version {
            return Ok(());
        }
        // A commit between the two queries is in the states already, and makes the next look find nothing new.
        let names: Vec<_> = wakeups.waiting().keys().cloned().collect();
        let mut known = HashMap::with_capacity(names.len());
        for name in &names {
            let state: Option<State> =
                sqlx::query_as("SELECT id, last_ms, last_seq, removals FROM highwater_stream WHERE name = ?")
                    .bind(name.as_str())
                    .fetch_optional(&mut *conn)
                    .await?;
            known.insert(name.as_str().to_owned(), state.unwrap_or_default());
        }
        // One who was not there at the last look may have read before the commit: it looks again.
        let changed = |name: &StreamName| self.known.get(name.as_str()) != known.get(name.as_str());
        wakeups.wake(names.into_iter().filter(changed).collect());
        (self.known, self.version) = (known, version);
        Ok(())
    }
}
