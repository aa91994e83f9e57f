//! What can be chosen.

use std::{collections::BTreeSet, time::Duration};

use highwater::{Error, Result};

/// The longest name that PostgreSQL keeps whole, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Settings of a [`Postgres`](crate::Postgres). Plain data; [`Postgres::from_pool_with`](crate::Postgres::from_pool_with)
/// validates them.
///
/// ```
/// use std::time::Duration;
///
/// use highwater_postgres::Settings;
///
/// let settings = Settings::default().schema("billing").response_timeout(Duration::from_secs(10));
/// assert_eq!((settings.checkpoint_table.as_str(), settings.connections), ("checkpoint", 2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The schema of the tables. Default: `highwater`.
    pub schema: String,
    /// The table of the checkpoints. Default: `checkpoint`. The view that shows them has this name and `_view`.
    pub checkpoint_table: String,
    /// The table of what transactions have settled above the watermark. Default: `settled`.
    pub settled_table: String,
    /// The table of the attempts that are remembered. Default: `attempts`.
    pub attempts_table: String,
    /// How many connections of the pool are kept for checkpoints, from 1 to 64 and fewer than the pool has. Default: 2.
    /// Requests of one subscription share one, in order. More: several subscriptions advance side by side; fewer: more of the
    /// pool is left for you. A transaction takes one more, as long as it is open.
    pub connections: usize,
    /// How long to wait for a connection, and then for an answer, from 100 ms to 10 min. Default: 5 s. Shorter: an outage is
    /// noticed sooner; longer: fewer errors under load. The server is given four fifths of it for a statement, also while
    /// that waits for a row that somebody else has locked.
    pub response_timeout: Duration,
    /// How long a transaction may stand still after it has settled its entries, from 10 ms to less than four fifths of the
    /// response timeout. Default: 2 s. The server ends it then. A process that is stopped right before its commit holds up
    /// the next owner this long; shorter makes commits fail where a process or the network is often this slow.
    pub commit_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema: "highwater".into(),
            checkpoint_table: "checkpoint".into(),
            settled_table: "settled".into(),
            attempts_table: "attempts".into(),
            connections: 2,
            response_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// Sets the schema of the tables.
    #[must_use]
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Sets the table of the checkpoints.
    #[must_use]
    pub fn checkpoint_table(mut self, name: impl Into<String>) -> Self {
        self.checkpoint_table = name.into();
        self
    }

    /// Sets the table of what transactions have settled.
    #[must_use]
    pub fn settled_table(mut self, name: impl Into<String>) -> Self {
        self.settled_table = name.into();
        self
    }

    /// Sets the table of the attempts that are remembered.
    #[must_use]
    pub fn attempts_table(mut self, name: impl Into<String>) -> Self {
        self.attempts_table = name.into();
        self
    }

    /// Sets how many connections are kept for checkpoints.
    #[must_use]
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// Sets how long to wait for a connection, and then for an answer.
    #[must_use]
    pub fn response_timeout(mut self, wait: Duration) -> Self {
        self.response_timeout = wait;
        self
    }

    /// Sets how long a transaction may stand still after it has settled its entries.
    #[must_use]
    pub fn commit_timeout(mut self, wait: Duration) -> Self {
        self.commit_timeout = wait;
        self
    }

    /// How long the server works on a statement, also while it waits for a row that is locked. Less than the response
    /// timeout, so that it is known then that nothing took place.
    pub(crate) fn statement_timeout(&self) -> Duration {
        self.response_timeout * 4 / 5
    }

    pub(crate) fn validate(&self) -> Result<()> {
        identifier("schema", &self.schema, NAME_BYTES_MAX)?;
        identifier("checkpoint_table", &self.checkpoint_table, NAME_BYTES_MAX - "_view".len())?;
        identifier("settled_table", &self.settled_table, NAME_BYTES_MAX)?;
        identifier("attempts_table", &self.attempts_table, NAME_BYTES_MAX)?;
        let view = format!("{}_view", self.checkpoint_table);
        let tables =
            BTreeSet::from([&self.checkpoint_table, &view, &self.settled_table, &self.attempts_table]);
        if tables.len() < 4 {
            return Err(Error::invalid("two tables have one name: give each its own"));
        }
        if !(1..=64).contains(&self.connections) {
            return Err(Error::invalid("`connections` is from 1 to 64"));
        }
        let timeouts = Duration::from_millis(100)..=Duration::from_secs(600);
        if !timeouts.contains(&self.response_timeout) {
            return Err(Error::invalid("`response_timeout` is from 100 ms to 10 min"));
        }
        if self.commit_timeout < Duration::from_millis(10) || self.commit_timeout >= self.statement_timeout()
        {
            return Err(Error::invalid(
                "`commit_timeout` is from 10 ms to less than four fifths of `response_timeout`",
            ));
        }
        Ok(())
    }
}

/// Names are quoted, so nearly all are possible; those that PostgreSQL would cut or refuse are not.
fn identifier(setting: &'static str, name: &str, bytes: usize) -> Result<()> {
    if name.is_empty() || name.len() > bytes || name.chars().any(char::is_control) {
        return Err(Error::invalid("a name is empty, too long, or holds a control character: shorten it")
            .with("setting", setting)
            .with("bytes_max", bytes)
            .with("name", name.chars().take(64).collect::<String>().escape_debug()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use highwater::ErrorKind;

    use super::*;

    #[test]
    fn g18_settings_that_make_no_sense_are_refused() {
        let settings = Settings::default;
        assert!(settings().validate().is_ok());
        assert!(settings().schema("My \"schema\"; DROP TABLE x").settled_table("ä'").validate().is_ok());
        for bad in [
            settings().schema(""),
            settings().schema("a\0b"),
            settings().checkpoint_table("x".repeat(59)),
            settings().settled_table("x".repeat(64)),
            settings().settled_table("checkpoint"),
            settings().settled_table("checkpoint_view"),
            settings().attempts_table("x".repeat(64)),
            settings().attempts_table("settled"),
            settings().attempts_table("checkpoint"),
            settings().connections(0),
            settings().connections(65),
            settings().response_timeout(Duration::from_millis(99)),
            settings().response_timeout(Duration::MAX),
            settings().commit_timeout(Duration::ZERO),
            settings().commit_timeout(Duration::from_secs(4)),
        ] {
            assert_eq!(bad.validate().unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }
}
