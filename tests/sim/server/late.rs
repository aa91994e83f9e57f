//! Writes that come later than their caller believes: it was told that nobody knows, and is perhaps gone when they take place.

use std::time::Duration;

use futures_util::future::BoxFuture;
use highwater::{Error, ErrorKind, Outcome, Result};

use super::Server;

/// No write comes later than this.
pub const LATE_MAX: Duration = Duration::from_millis(600);

impl Server {
    /// Sends a request, which by chance goes on by itself.
    pub async fn sent<R, T>(
        &self,
        request: &R,
        call: impl for<'a> Fn(&'a Self, &'a R) -> BoxFuture<'a, Result<T>> + Send + 'static,
    ) -> Result<T>
    where
        R: Clone + Send + Sync + 'static,
        T: Send,
    {
        let server = Self { era: self.audit.lock().era_of(self.who), ..self.clone() };
        let Some(delay) = self.delay() else { return call(&server, request).await };
        let request = request.clone();
        let clock = self.clock.clone();
        tokio::spawn(async move {
            clock.sleep(delay).await;
            server.audit.lock().note(format_args!("c{} is late with what follows", server.who));
            server.audit.lock().late = true;
            // Nobody waits for the answer.
            drop(call(&server, &request).await);
            server.audit.lock().late = false;
        });
        Err(unknown())
    }

    /// How late a write is, if it is.
    pub fn delay(&self) -> Option<Duration> {
        let mut random = self.chance();
        (self.who != 0 && random.f64() < self.late).then(|| LATE_MAX.mul_f64(random.f64()))
    }
}

pub fn unknown() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection was lost").with_outcome(Outcome::Unknown)
}
