//! What the library logs, for tests that say what must be in it or must not.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Level, subscriber::DefaultGuard};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// Everything logged by this thread while it lives: events and spans with their fields, down to `TRACE`, of all crates.
///
/// Use it in a test on a current-thread runtime, whose tasks all run on this thread.
#[derive(Debug)]
pub struct Logs {
    buffer: Buffer,
    _guard: DefaultGuard,
}

impl Logs {
    /// Starts to collect.
    pub fn capture() -> Self {
        // Some crates log without `tracing`. It is done once for the process.
        tracing_log::LogTracer::init().ok();
        let buffer = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_span_events(FmtSpan::NEW)
            .with_ansi(false)
            .with_writer(buffer.clone())
            .finish();
        Self { buffer, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// All lines until now.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Panics with the line that holds `secret`.
    pub fn assert_without(&self, secret: &str) {
        if let Some(line) = self.text().lines().find(|line| line.contains(secret)) {
            panic!("a secret was logged: {line}");
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Buffer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use crate::support::Logs;

    #[test]
    fn events_and_spans_are_collected() {
        let logs = Logs::capture();
        let span = tracing::trace_span!("reading", url = "redis://host");
        span.in_scope(|| tracing::debug!(entries = 7, "read"));
        assert!(logs.text().contains("entries=7"), "{}", logs.text());
        assert!(logs.text().contains("redis://host"), "{}", logs.text());
        logs.assert_without("hunter2");
    }

    #[test]
    #[should_panic(expected = "a secret was logged")]
    fn a_secret_is_found() {
        let logs = Logs::capture();
        tracing::trace!(password = "hunter2", "connecting");
        logs.assert_without("hunter2");
    }
}
