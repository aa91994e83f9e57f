//! What a producer may do, as plain data.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::{Error, Result, clock};

/// How long the entries of a stream are kept.
///
/// A producer enforces it while it appends, approximately: a little more may stay, never less. It does not touch what a
/// protected checkpoint still needs; see [`ProducerBuilder::protect`](super::ProducerBuilder::protect).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// Entries are kept this long, by the time in their ids, which is the server's. At least a millisecond.
    Age(Duration),
    /// The newest so many entries are kept. At least one.
    Len(u64),
    /// Entries are kept until somebody else removes them.
    Forever,
}

impl Default for Retention {
    /// 24 hours.
    fn default() -> Self {
        Self::Age(Duration::from_hours(24))
    }
}

/// The limits and delays of a producer. Checked when the producer is built.
///
/// ```
/// use highwater::producer::{ProducerSettings, Retention};
///
/// let mut settings = ProducerSettings::default();
/// settings.payload_bytes_max = 64_000;
/// settings.retention = Retention::Len(1_000_000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerSettings {
    /// The largest entry: the bytes of its names and values together. A larger one is refused before anything is sent.
    /// Default 1,000,000. Each of a consumer's deliveries may hold that much memory.
    pub payload_bytes_max: usize,
    /// The most entries in one call of the backend. Default 1,000. More save round trips under load, and let the server
    /// work longer on one call while others wait.
    pub batch_entries_max: usize,
    /// The most bytes in one call of the backend. Default 4,000,000; not below `payload_bytes_max`.
    pub batch_bytes_max: usize,
    /// The most entries that are queued or on their way; who wants to append more waits. Default 10,000.
    pub in_flight_entries_max: usize,
    /// The most bytes that are queued or on their way; who wants to append more waits. Default 32,000,000; not below
    /// `batch_bytes_max`. It bounds the memory of the producer.
    pub in_flight_bytes_max: usize,
    /// How long an entry may wait for others to share its batch. Default zero: a batch is what has gathered while the one
    /// before it was on its way, which costs a lone entry nothing. A linger trades latency for fewer, larger batches.
    pub linger: Duration,
    /// How long [`close`](super::Producer::close) goes on sending what is queued. Default 10 s. What is left then is given
    /// up, each with its outcome.
    pub drain_max: Duration,
    /// How long entries are kept. Default 24 hours.
    pub retention: Retention,
    /// Trim also what a protected checkpoint still needs, and without asking. Default `false`. Consumers then find a gap.
    pub force_trim: bool,
    /// The least time between two trims. Default 1 s. Each trim costs one call of the backend and one of each protected
    /// checkpoint store; between two of them the stream grows by what is appended meanwhile.
    pub trim_interval: Duration,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            payload_bytes_max: 1_000_000,
            batch_entries_max: 1_000,
            batch_bytes_max: 4_000_000,
            in_flight_entries_max: 10_000,
            in_flight_bytes_max: 32_000_000,
            linger: Duration::ZERO,
            drain_max: Duration::from_secs(10),
            retention: Retention::default(),
            force_trim: false,
            trim_interval: Duration::from_secs(1),
        }
    }
}

impl ProducerSettings {
    /// Checks every setting, and those that depend on each other.
    pub(super) fn validate(&self) -> Result<()> {
        let positive = [
            ("payload_bytes_max", self.payload_bytes_max),
            ("batch_entries_max", self.batch_entries_max),
            ("in_flight_entries_max", self.in_flight_entries_max),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(Error::invalid("a limit of the producer is zero: set at least 1")
                    .with("setting", name)
                    .with("value", value));
            }
        }
        // A batch that could not hold the largest entry, or a window that could not hold a batch, would wait for ever.
        at_least(("batch_bytes_max", self.batch_bytes_max), ("payload_bytes_max", self.payload_bytes_max))?;
        at_least(
            ("in_flight_bytes_max", self.in_flight_bytes_max),
            ("batch_bytes_max", self.batch_bytes_max),
        )?;
        for (name, value) in [
            ("in_flight_entries_max", self.in_flight_entries_max),
            ("in_flight_bytes_max", self.in_flight_bytes_max),
        ] {
            if value > WINDOW_MAX {
                return Err(Error::invalid("a limit of the producer is too large: set at most `max`")
                    .with("setting", name)
                    .with("value", value)
                    .with("max", WINDOW_MAX));
            }
        }
        match self.retention {
            Retention::Age(age) if clock::millis(age) == 0 => {
                Err(Error::invalid("a retention under a millisecond keeps nothing: set a longer one")
                    .with("setting", "retention"))
            }
            Retention::Len(0) => {
                Err(Error::invalid("a retention of no entries keeps nothing: set at least 1")
                    .with("setting", "retention"))
            }
            _ => Ok(()),
        }
    }
}

/// What one call of a semaphore can count.
const WINDOW_MAX: usize =
    if Semaphore::MAX_PERMITS < u32::MAX as usize { Semaphore::MAX_PERMITS } else { u32::MAX as usize };

fn at_least((name, value): (&'static str, usize), (other, least): (&'static str, usize)) -> Result<()> {
    if value >= least {
        return Ok(());
    }
    Err(Error::invalid("a limit of the producer is below what it must hold: set at least `least`")
        .with("setting", name)
        .with("value", value)
        .with("other", other)
        .with("least", least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_defaults_are_valid_and_documented() {
        let settings = ProducerSettings::default();
        settings.validate().unwrap();
        assert_eq!(settings.payload_bytes_max, 1_000_000);
        assert_eq!(settings.retention, Retention::Age(Duration::from_secs(24 * 60 * 60)));
        assert!(!settings.force_trim);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        type Change = fn(&mut ProducerSettings);
        let cases: [(&str, Change); 9] = [
            ("payload_bytes_max", |s| s.payload_bytes_max = 0),
            ("batch_entries_max", |s| s.batch_entries_max = 0),
            ("in_flight_entries_max", |s| s.in_flight_entries_max = 0),
            ("in_flight_entries_max", |s| s.in_flight_entries_max = usize::MAX),
            ("batch_bytes_max", |s| s.batch_bytes_max = 999_999),
            ("in_flight_bytes_max", |s| s.in_flight_bytes_max = 3_999_999),
            ("in_flight_bytes_max", |s| s.in_flight_bytes_max = usize::MAX),
            ("retention", |s| s.retention = Retention::Age(Duration::from_micros(999))),
            ("retention", |s| s.retention = Retention::Len(0)),
        ];
        for (name, change) in cases {
            let mut settings = ProducerSettings::default();
            change(&mut settings);
            let error = settings.validate().unwrap_err();
            assert_eq!((error.kind(), error.context("setting")), (ErrorKind::Invalid, Some(name)), "{error}");
        }
    }
}
