//! Validated names: of streams, groups and consumers.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{Error, Result};

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 512;

fn validate(kind: &'static str, name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "is longer than 512 bytes"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!(
        "the name of a {kind} {problem}: use 1 to 512 bytes without control characters"
    ))
    .with("name", name.chars().take(64).collect::<String>().escape_debug()))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 512 bytes of UTF-8 without control characters. Cloning is cheap.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is empty, too long or holds a control character.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                validate($kind, name.as_ref())?;
                Ok(Self(name.as_ref().into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = Error;

            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// The name of a stream: its key.
    StreamName,
    "stream"
);
name!(
    /// The name of a group.
    GroupName,
    "group"
);
name!(
    /// The name of a consumer: a member of a group, or the owner of a lease.
    ConsumerName,
    "consumer"
);

impl ConsumerName {
    /// A name that is unique across hosts, processes and restarts: host, process id and 64 random bits.
    ///
    /// Uniqueness is what keeps a restarted process from being taken for its dead self. The dead one's entries come to
    /// the living through its missing heartbeat, not through the name.
    ///
    /// ```
    /// use highwater::ConsumerName;
    /// assert_ne!(ConsumerName::unique(), ConsumerName::unique());
    /// ```
    #[must_use]
    pub fn unique() -> Self {
        let host: String = gethostname::gethostname()
            .to_string_lossy()
            .chars()
            .filter(|c| !c.is_control())
            .take(64)
            .collect();
        Self(format!("{host}-{}-{:016x}", std::process::id(), crate::clock::random()).into())
    }
}

/// A stream and a group on it: what a checkpoint belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subscription {
    /// The stream that is read.
    pub stream: StreamName,
    /// The group that reads it. An exclusive subscription needs no group on the server, but keeps the name.
    pub group: GroupName,
}

impl Subscription {
    /// Checks and takes both names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if one of them is empty, too long or holds a control character.
    ///
    /// ```
    /// use highwater::Subscription;
    /// let subscription = Subscription::new("orders", "billing")?;
    /// assert_eq!(subscription.to_string(), "orders/billing");
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn new(stream: impl AsRef<str>, group: impl AsRef<str>) -> Result<Self> {
        Ok(Self { stream: StreamName::new(stream)?, group: GroupName::new(group)? })
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_are_validated() {
        for bad in ["", "a\0b", "a\nb", &"x".repeat(513)] {
            let error = StreamName::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("stream"), "{error}");
        }
        for good in ["a", "{a}b", "}{", "ä", &"x".repeat(512)] {
            assert_eq!(StreamName::new(good).unwrap().as_str(), good);
        }
    }
}
