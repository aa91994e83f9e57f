//! What a connection is made of: plain data.

use std::{fmt, time::Duration};

use highwater::{Error, Result};

/// Where the server is, and how long to wait for it. Its `Debug` form shows no password.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Where the server is, and who asks:
    ///
    /// | what | form |
    /// | --- | --- |
    /// | a server | `redis://[user:password@]host[:port][/db]` |
    /// | a socket | `redis+unix:///path[?db=0&user=…&pass=…]` |
    /// | the master that sentinels name | `redis-sentinel://[user:password@]host[:port],…[/db]?master=name` |
    /// | a cluster | `redis-cluster://[user:password@]host[:port],…` |
    ///
    /// Any one of several hosts is enough to find the others. The ports default to 6379, for sentinels to 26379. Sentinels that
    /// ask for a user or a password of their own get `&sentinel_user=…&sentinel_pass=…`.
    ///
    /// With `rediss` in place of `redis` it goes by TLS, to the sentinels too. With `protocol=resp3` behind the `?` the third
    /// version of the protocol is spoken. What a URL gives a special meaning, in a password, is written as `%2F` and so on.
    pub url: String,
    /// How long to wait for the reply to a command. A shorter time finds a dead server earlier; a longer one lets a slow
    /// server finish, which avoids replies of unknown outcome. Default 5 s.
    pub response_timeout: Duration,
    /// How long to wait for a connection, its authentication included. Default 5 s.
    pub connect_timeout: Duration,
    /// How much longer than asked for a blocking read may take before its connection is given up. Servers answer late when
    /// they are busy; too short a time would give up entries that were just handed over. Default 2 s.
    pub block_slack: Duration,
    /// How many reads may have a connection of their own while they run, which is fastest. All others share four, and wait for
    /// entries together: one connection for up to 64 streams. So thousands of consumers need few connections. Default 16; `0`:
    /// all share; `usize::MAX`: none does. In a cluster, each read has its own, whatever this says.
    ///
    /// Who waits with others learns up to 2 s later that its stream or group was removed. It needs `XREVRANGE`, where users are
    /// restricted.
    pub reading_connections_max: usize,
}

impl Settings {
    /// The defaults, for this server.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            response_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            block_slack: Duration::from_secs(2),
            reading_connections_max: 16,
        }
    }

    /// Waits this long for a reply.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Waits this long for a connection.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Waits this much longer than asked for on a blocking read.
    #[must_use]
    pub fn block_slack(mut self, slack: Duration) -> Self {
        self.block_slack = slack;
        self
    }

    /// So many reads have a connection of their own.
    #[must_use]
    pub fn reading_connections_max(mut self, connections: usize) -> Self {
        self.reading_connections_max = connections;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("response_timeout", self.response_timeout),
            ("connect_timeout", self.connect_timeout),
            ("block_slack", self.block_slack),
        ] {
            // It is added to other times, which it must not overflow.
            if value.is_zero() || value > Duration::from_hours(24) {
                return Err(
                    Error::invalid("a timeout must be above zero and at most a day").with("setting", name)
                );
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds the password, in one of several places. The scheme is all of it that is safe to show unparsed.
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        f.debug_struct("Settings")
            .field("url", &format_args!("{}://…", scheme.escape_debug()))
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("block_slack", &self.block_slack)
            .field("reading_connections_max", &self.reading_connections_max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g18_the_debug_form_shows_no_password() {
        for url in ["redis://user:hunter2@host:1/0", "redis+unix:///path?pass=hunter2", "hunter2"] {
            assert!(!format!("{:?}", Settings::new(url)).contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn g18_a_zero_timeout_is_refused() {
        let settings = Settings::new("redis://localhost");
        assert!(settings.validate().is_ok());
        for zero in [
            settings.clone().response_timeout(Duration::ZERO),
            settings.clone().connect_timeout(Duration::ZERO),
            settings.clone().block_slack(Duration::ZERO),
        ] {
            assert_eq!(zero.validate().unwrap_err().kind(), highwater::ErrorKind::Invalid);
        }
    }
}
