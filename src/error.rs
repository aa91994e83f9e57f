//! The one error of the library: what to do, whether to repeat, whether it happened.

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::integrity::Finding;

/// What every fallible function of the library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// What went wrong, as what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another live owner or consumer holds this. Wait until it is gone, or use another name.
    Busy,
    /// The handle was closed. Open a new one.
    Closed,
    /// What is stored cannot be read: garbage, or written by a newer version. An operator must look.
    Corrupt,
    /// The server refused the credentials or a command. Correct the password or the rights.
    Denied,
    /// A newer owner exists. Stop; do not repeat, do not ack.
    Fenced,
    /// Entries left the stream before they were settled. Decide whether to go on without them: see [`Error::finding`].
    Gap,
    /// The handler did not succeed. Look at its own error in [`source`](StdError::source).
    Handler,
    /// A bug in this library. Please report it.
    Internal,
    /// The call, a name, a URL or a setting is wrong. Correct it.
    Invalid,
    /// A stream, group or schema is absent. Create it.
    Missing,
    /// The stream is not the one that the checkpoint was taken from. Reset the checkpoint: see [`Error::finding`].
    Reset,
    /// The server or the network cannot answer now. Repeat as [`Error::retry`] says.
    Unavailable,
    /// The backend or the server lacks the capability. Use another option or backend.
    Unsupported,
}

/// Whether the same call may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// It would fail the same way.
    Never,
    /// At once.
    Now,
    /// After a while, with backoff.
    Later,
}

/// Whether the effect of the failed call took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It did not.
    NotApplied,
    /// Nobody can tell: the reply was lost.
    Unknown,
}

/// An error of the library or of a backend.
///
/// [`kind`](Self::kind) says what to do, [`retry`](Self::retry) whether the call may be repeated, and
/// [`outcome`](Self::outcome) whether it took effect. `Display` prints this level alone, in one line; the driver's error
/// is the [`source`](StdError::source), for diagnostics and not for control flow. Secrets never appear in any of them.
///
/// ```
/// use highwater::{ErrorKind, Outcome, Retry, StreamName};
///
/// let error = StreamName::new("").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert_eq!((error.retry(), error.outcome()), (Retry::Never, Outcome::NotApplied));
/// assert!(error.to_string().starts_with("the name of a stream is empty: use 1 to 512 bytes"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    outcome: Outcome,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    finding: Option<Finding>,
    source: Option<Source>,
}

impl Error {
    /// An error of this kind. It is final and was not applied, unless the kind is [`ErrorKind::Unavailable`]: that may be
    /// repeated later. Change either with [`with_retry`](Self::with_retry) and [`with_outcome`](Self::with_outcome).
    ///
    /// The message is a lowercase sentence that says what to do; variables go to [`with`](Self::with).
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry = if kind == ErrorKind::Unavailable { Retry::Later } else { Retry::Never };
        let inner = Inner {
            kind,
            retry,
            outcome: Outcome::NotApplied,
            message: message.into(),
            context: Vec::new(),
            finding: None,
            source: None,
        };
        Self(Box::new(inner))
    }

    /// [`ErrorKind::Invalid`] with this message.
    #[must_use]
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::Fenced`]: the caller's epoch is not the stored one.
    #[must_use]
    pub fn fenced(ours: crate::Epoch, stored: crate::Epoch) -> Self {
        Self::new(ErrorKind::Fenced, "a newer owner took the subscription: stop, and do not repeat")
            .with("epoch", ours)
            .with("stored", stored)
    }

    /// [`ErrorKind::Fenced`]: the checkpoint is not where the caller believed it to be.
    #[must_use]
    pub fn moved(expected: crate::EntryId, stored: crate::EntryId) -> Self {
        Self::new(ErrorKind::Fenced, "the checkpoint stands elsewhere now: look again, and decide anew")
            .with("expected", expected)
            .with("stored", stored)
    }

    /// Adds a variable that the message is about. Never a secret.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Sets the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets whether the call may be repeated.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Sets whether the call took effect.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    pub(crate) fn with_finding(mut self, finding: Finding) -> Self {
        self.0.finding = Some(finding);
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may be repeated.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether the call took effect.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// What was found wrong with the stream, for [`ErrorKind::Gap`] and [`ErrorKind::Reset`].
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        self.0.finding.as_ref()
    }

    /// The value that [`with`](Self::with) recorded under this name.
    #[must_use]
    pub fn context(&self, name: &str) -> Option<&str> {
        self.0.context.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}=`{value}`", if i == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.0.kind).field("retry", &self.0.retry).field("outcome", &self.0.outcome);
        s.field("message", &self.to_string());
        if let Some(finding) = &self.0.finding {
            s.field("finding", finding);
        }
        if let Some(source) = &self.0.source {
            s.field("source", source);
        }
        s.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_level_in_one_line() {
        let error = Error::new(ErrorKind::Unavailable, "the server cannot answer: try again")
            .with("stream", "s")
            .with("operation", "read")
            .with_source("connection reset");
        assert_eq!(error.to_string(), "the server cannot answer: try again: stream=`s`, operation=`read`");
        assert_eq!(error.source().unwrap().to_string(), "connection reset");
        assert_eq!((error.retry(), error.outcome()), (Retry::Later, Outcome::NotApplied));
    }

    #[test]
    fn an_error_is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
