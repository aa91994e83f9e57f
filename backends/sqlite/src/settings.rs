//! What can be chosen.

use std::time::Duration;

use highwater::{Error, Result};

/// When a commit is on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// Each commit is synced to the disk before it is reported: it survives a loss of power. The default.
    #[default]
    Full,
    /// Commits are synced together, some time later. Many times faster for single writes. A crash of the process loses
    /// nothing; a loss of power may lose the last commits, the file stays sound. A checkpoint and its stream then go back
    /// together, but anything outside this file, such as a client that was told of an append, does not.
    Normal,
}

/// Settings of a [`Sqlite`](crate::Sqlite). Plain data; [`Sqlite::open_with`](crate::Sqlite::open_with) validates them.
///
/// ```
/// use std::time::Duration;
///
/// use highwater_sqlite::{Settings, Synchronous};
///
/// let settings = Settings::default().synchronous(Synchronous::Normal).max_bytes(Some(64 << 20));
/// assert_eq!(settings.busy_timeout, Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// When a commit is on the disk. Default: [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// How long to wait for another process that writes, up to ten minutes. Default: 5 s. Longer: fewer errors under load;
    /// shorter: a stuck process is noticed sooner.
    pub busy_timeout: Duration,
    /// How often a blocked read looks for what other processes wrote, from 1 ms to 10 s. Default: 5 ms. Shorter: sooner seen,
    /// at a few microseconds of CPU each; it costs nothing while nobody is blocked. What is appended through the same
    /// `Sqlite` is seen at once in any case.
    pub poll_interval: Duration,
    /// How large the file may grow, at least 1 MiB; the log beside it comes on top. `None`, the default: as large as the disk
    /// lets it. At the limit, writes fail as on a full disk and reads go on.
    pub max_bytes: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_millis(5),
            max_bytes: None,
        }
    }
}

impl Settings {
    /// Sets when a commit is on the disk.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets how long to wait for another process that writes.
    #[must_use]
    pub fn busy_timeout(mut self, wait: Duration) -> Self {
        self.busy_timeout = wait;
        self
    }

    /// Sets how often a blocked read looks for what other processes wrote.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how large the file may grow.
    #[must_use]
    pub fn max_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_bytes = bytes;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let within = |value: Duration, least, most| (least..=most).contains(&value);
        if !within(self.busy_timeout, Duration::ZERO, Duration::from_secs(600)) {
            return Err(Error::invalid("`busy_timeout` is from 0 to 10 min"));
        }
        if !within(self.poll_interval, Duration::from_millis(1), Duration::from_secs(10)) {
            return Err(Error::invalid("`poll_interval` is from 1 ms to 10 s"));
        }
        if self.max_bytes.is_some_and(|bytes| bytes < 1 << 20) {
            return Err(Error::invalid("`max_bytes` is at least 1 MiB"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use highwater::ErrorKind;

    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        assert!(Settings::default().validate().is_ok());
        for bad in [
            Settings::default().busy_timeout(Duration::from_secs(601)),
            Settings::default().poll_interval(Duration::ZERO),
            Settings::default().poll_interval(Duration::from_secs(11)),
            Settings::default().max_bytes(Some(1000)),
        ] {
            assert_eq!(bad.validate().unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }
}
