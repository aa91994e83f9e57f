//! Which connections of the pool are worth a try, after one of them was silent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use highwater::clock::Clock;
use sqlx::{Connection, postgres::PgPoolOptions};
use tokio::time::timeout;

/// When a connection last did not answer. Those that were there by then may lead nowhere as well, behind a route or a peer
/// that is gone, and each of them would cost a whole wait to find out.
#[derive(Debug, Clone)]
pub(crate) struct Silence {
    clock: Clock,
    noticed: Arc<Mutex<Option<Duration>>>,
}

impl Silence {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::new(), noticed: Arc::default() }
    }

    /// A connection did not answer in time.
    pub(crate) fn notice(&self) {
        *self.noticed.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.elapsed());
    }

    /// Has the pool close those that were there when one was silent, and those that do not answer.
    pub(crate) fn guard(&self, options: PgPoolOptions) -> PgPoolOptions {
        let (silence, patience) = (self.clone(), options.get_acquire_timeout() / 2);
        // The driver's own test comes before this, and would wait for each of them.
        options.test_before_acquire(false).before_acquire(move |conn, meta| {
            let silence = silence.clone();
            Box::pin(async move {
                if silence.was_there(meta.age) {
                    return Ok(false);
                }
                let answer = timeout(patience, conn.ping()).await;
                if answer.is_err() {
                    silence.notice();
                }
                Ok(matches!(answer, Ok(Ok(()))))
            })
        })
    }

    fn was_there(&self, age: Duration) -> bool {
        let noticed = *self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.is_some_and(|at| age >= self.clock.elapsed().saturating_sub(at))
    }
}
