//! How long to wait before trying again.

use std::time::Duration;

use crate::{Error, Result, clock};

/// Exponential backoff, or waits one by one, with jitter.
///
/// ```
/// use std::time::Duration;
/// use highwater::Backoff;
///
/// let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
/// assert_eq!(backoff.delay(1), Duration::from_millis(100));
/// assert_eq!(backoff.delay(3), Duration::from_millis(400));
/// assert_eq!(backoff.delay(99), Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    /// The wait before the second attempt. Default: 100 ms.
    pub first: Duration,
    /// Each wait is this many times the one before. Default: 2.
    pub factor: f64,
    /// The longest wait, at most a day. Default: 30 s.
    pub max: Duration,
    /// The waits one by one, in place of the formula; the last one repeats. Default: none, so the formula.
    pub steps: Vec<Duration>,
    /// The share of a wait that is random, so that many do not try again at the same instant: 0 to 1. Default: 0.2.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(30),
            steps: Vec::new(),
            jitter: 0.2,
        }
    }
}

impl Backoff {
    /// These waits, one by one; the last one repeats.
    ///
    /// ```
    /// use std::time::Duration;
    /// use highwater::Backoff;
    ///
    /// let seconds = [1, 10, 60].map(Duration::from_secs);
    /// let backoff = Backoff { jitter: 0.0, ..Backoff::steps(seconds) };
    /// assert_eq!((backoff.delay(1), backoff.delay(3), backoff.delay(9)), (seconds[0], seconds[2], seconds[2]));
    /// ```
    #[must_use]
    pub fn steps(waits: impl IntoIterator<Item = Duration>) -> Self {
        Self { steps: waits.into_iter().collect(), ..Self::default() }
    }

    /// The wait after this many failed attempts, at least 1.
    #[must_use]
    pub fn delay(&self, failed: u32) -> Duration {
        let before = failed.saturating_sub(1);
        let step = self.steps.get(before as usize).or(self.steps.last());
        let wait = match step {
            Some(step) => step.as_secs_f64(),
            None => {
                let exponent = i32::try_from(before).unwrap_or(i32::MAX);
                (self.first.as_secs_f64() * self.factor.powi(exponent)).min(self.max.as_secs_f64())
            }
        };
        Duration::from_secs_f64(wait * (1.0 - self.jitter * clock::fraction()))
    }

    pub(crate) fn validate(&self, name: &'static str) -> Result<()> {
        let valid = self.factor >= 1.0
            && self.factor.is_finite()
            && (0.0..=1.0).contains(&self.jitter)
            && self.first <= self.max
            && !self.first.is_zero()
            // It is added to a time that it must not overflow.
            && self.steps.iter().chain([&self.max]).all(|wait| *wait <= Duration::from_hours(24));
        if valid {
            return Ok(());
        }
        Err(Error::invalid(
            "a backoff needs 0 < first <= max <= 1 day, factor >= 1 and jitter between 0 and 1",
        )
        .with("setting", name))
    }
}
