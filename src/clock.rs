//! The one source of time and randomness.
//!
//! Everything in the core asks here, so that paused time drives all of it in tests and a simulation can be repeated.

#![expect(clippy::disallowed_methods, reason = "this is the one place that may ask the machine")]

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, time::Instant};

/// What is done [together](Clock::together) waits no longer than this for others.
const TOGETHER_MAX_MS: u64 = 64;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(u64);

impl Timestamp {
    /// This many milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This much earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A duration in whole milliseconds, as servers take it.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that never goes back: wall time read once, then carried by the runtime's monotonic clock.
///
/// Under tokio's paused time it stands still and moves with it.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Arc<Start>,
    freeze: Option<Freeze>,
}

#[derive(Debug)]
struct Start {
    wall: Timestamp,
    mono: OnceLock<Instant>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts at the machine's wall time.
    #[must_use]
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(Timestamp(millis(wall)))
    }

    /// A clock that starts at this wall time, for a run that is to be the same each time, or for a host whose clock is wrong.
    #[must_use]
    pub fn at(wall: Timestamp) -> Self {
        Self { start: Arc::new(Start { wall, mono: OnceLock::new() }), freeze: None }
    }

    /// Lets no wait end while this holds.
    #[must_use]
    pub fn frozen_by(mut self, freeze: Freeze) -> Self {
        self.freeze = Some(freeze);
        self
    }

    /// A clock whose [`elapsed`](Self::elapsed) counts from now.
    #[must_use]
    pub fn started() -> Self {
        let clock = Self::new();
        let _ = clock.elapsed();
        clock
    }

    /// Time since the clock was first asked. Monotonic.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.mono.get_or_init(Instant::now).elapsed()
    }

    /// Wall time that never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.start.wall.plus(self.elapsed())
    }

    /// Waits.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the wait and nothing else.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
        if let Some(freeze) = &self.freeze {
            freeze.thawed().await;
        }
    }

    /// Waits for this time and at most an eighth of it longer, [together](Self::together) with others.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the wait and nothing else.
    pub async fn sleep_together(&self, duration: Duration) {
        self.sleep_until(self.together(self.elapsed().saturating_add(duration))).await;
    }

    /// When to do what is due at `at`, by [`elapsed`](Self::elapsed), so that many do it together: the next of the instants that
    /// all clocks of this machine share, which comes at most an eighth of the wait later. It takes fewer wake-ups then, and
    /// commands to one server go in one packet.
    #[must_use]
    pub fn together(&self, at: Duration) -> Duration {
        let eighth = millis(at.saturating_sub(self.elapsed()) / 8);
        let Some(bits) = eighth.min(TOGETHER_MAX_MS).checked_ilog2() else { return at };
        // In whole milliseconds, and not too early.
        let (at, step) = (millis(at).saturating_add(1), 1 << bits);
        let late = step - self.start.wall.0.saturating_add(at) % step;
        Duration::from_millis(at.saturating_add(late % step))
    }

    /// Waits until [`elapsed`](Self::elapsed) reaches `at`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the wait and nothing else.
    pub async fn sleep_until(&self, at: Duration) {
        self.sleep(at.saturating_sub(self.elapsed())).await;
    }
}

/// Stops one process of a simulation, as a signal does: while it is frozen its waits do not end, and time goes on.
///
/// Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Freeze(Arc<Frozen>);

#[derive(Debug, Default)]
struct Frozen {
    frozen: AtomicBool,
    /// A `watch` would wake those that wait in an order of chance.
    changed: Notify,
}

impl Freeze {
    /// Freezes it, or thaws it.
    pub fn set(&self, frozen: bool) {
        self.0.frozen.store(frozen, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Waits until it is not frozen.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the wait and nothing else.
    pub async fn thawed(&self) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if !self.0.frozen.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }
}

/// Makes all that is random on this thread from now on the same each time.
pub fn seed(seed: u64) {
    fastrand::seed(seed);
}

/// 64 random bits.
#[must_use]
pub fn random() -> u64 {
    fastrand::u64(..)
}

/// A duration within a quarter of this one, so that many who began at the same instant do not all come back at the same.
#[must_use]
pub fn about(duration: Duration) -> Duration {
    duration.mul_f64(0.75 + 0.5 * fraction())
}

/// A random fraction in `0.0..1.0`, for jitter.
#[must_use]
pub fn fraction() -> f64 {
    fastrand::f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_at_about_the_same_time_is_done_at_the_same() {
        let early = Clock::at(Timestamp(1_000_003));
        let _ = early.elapsed();
        tokio::time::advance(Duration::from_millis(5)).await;
        let late = Clock::at(Timestamp(1_000_008));
        let second = Duration::from_secs(1);
        let wall = |clock: &Clock, wait| clock.start.wall.plus(clock.together(clock.elapsed() + wait));
        let at = wall(&early, second);
        assert_eq!(at.0 % 64, 0, "an instant of those that all share");
        assert_eq!(wall(&late, second), at);
        for ms in 1..3_000 {
            let wait = Duration::from_micros(ms * 1_007);
            let later = early.together(early.elapsed() + wait).saturating_sub(early.elapsed() + wait);
            assert!(later <= wait / 8 + Duration::from_millis(1), "{wait:?}: {later:?} later");
        }
        assert_eq!(early.together(Duration::ZERO), Duration::ZERO, "what is due is due");
    }
}
