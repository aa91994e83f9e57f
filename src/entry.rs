//! An entry of a stream: its id and its fields.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;

use crate::{Error, Result};

/// The id of an entry: milliseconds and a sequence number, both full `u64`.
///
/// The order is numeric and means something only within one stream. `0-0` is before every entry: no stream can hold it.
///
/// ```
/// use highwater::EntryId;
///
/// let id: EntryId = "1700000000000-3".parse()?;
/// assert_eq!(id.next(), Some(EntryId::new(1_700_000_000_000, 4)));
/// assert_eq!("5".parse::<EntryId>()?, EntryId::new(5, 0), "a missing sequence number is 0");
/// assert!(EntryId::new(9, 0) < EntryId::new(10, 0), "ids are never compared as text");
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds, usually of the Unix time at which the server added the entry.
    pub ms: u64,
    /// Counts the entries within one millisecond.
    pub seq: u64,
}

impl EntryId {
    /// `0-0`, before every entry.
    pub const ZERO: Self = Self::new(0, 0);
    /// The last id that can exist.
    pub const MAX: Self = Self::new(u64::MAX, u64::MAX);

    /// The id `ms-seq`.
    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The smallest id above this one; `None` above [`EntryId::MAX`].
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self::new(self.ms, seq)),
            (None, Some(ms)) => Some(Self::new(ms, 0)),
            (None, None) => None,
        }
    }

    /// The greatest id below this one; `None` below [`EntryId::ZERO`].
    #[must_use]
    pub const fn prev(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self::new(self.ms, seq)),
            (None, Some(ms)) => Some(Self::new(ms, u64::MAX)),
            (None, None) => None,
        }
    }

    /// Reads `ms-seq` or `ms` from bytes, as a server sends them. `None` if it is anything else.
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        match text.iter().position(|&b| b == b'-') {
            Some(dash) => Some(Self::new(decimal(&text[..dash])?, decimal(&text[dash + 1..])?)),
            None => Some(Self::new(decimal(text)?, 0)),
        }
    }
}

/// Digits only: `u64::from_str` would let a `+` through, which no server accepts.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, &b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_bytes(text.as_bytes()).ok_or_else(|| {
            Error::invalid("an entry id is `ms-seq` or `ms`, two unsigned 64-bit decimals").with("id", text)
        })
    }
}

/// The fields of an entry: names and values as bytes, in the order in which they were appended.
///
/// Duplicate, empty and non-UTF-8 names survive. Cloning is cheap: the bytes are shared.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(Arc<[(Bytes, Bytes)]>);

impl Fields {
    /// The value of the first field of this name.
    #[must_use]
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&Bytes> {
        let name = name.as_ref();
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// All fields, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, (Bytes, Bytes)> {
        self.0.iter()
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field. A server refuses to append such an entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all names and values together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, value))).finish()
    }
}

impl<N: Into<Bytes>, V: Into<Bytes>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl From<Vec<(Bytes, Bytes)>> for Fields {
    fn from(fields: Vec<(Bytes, Bytes)>) -> Self {
        Self(fields.into())
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a (Bytes, Bytes);
    type IntoIter = std::slice::Iter<'a, (Bytes, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An immutable record of a stream.
///
/// ```
/// use highwater::{Entry, EntryId, Fields};
///
/// let fields: Fields = [("kind", "order"), ("kind", "again")].into_iter().collect();
/// let entry = Entry::new(EntryId::new(1, 0), fields);
/// assert_eq!(entry.fields.get("kind").unwrap(), "order");
/// assert_eq!(entry.fields.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Where the entry stands in its stream.
    pub id: EntryId,
    /// What was appended.
    pub fields: Fields,
}

impl Entry {
    /// An entry of these fields.
    #[must_use]
    pub fn new(id: EntryId, fields: Fields) -> Self {
        Self { id, fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_of_an_id_parses_prints_and_steps() {
        for (text, id) in [
            ("0-0", EntryId::ZERO),
            ("0-1", EntryId::new(0, 1)),
            ("1-18446744073709551615", EntryId::new(1, u64::MAX)),
            ("18446744073709551615-18446744073709551615", EntryId::MAX),
        ] {
            assert_eq!(text.parse::<EntryId>().unwrap(), id);
            assert_eq!(id.to_string(), text);
        }
        assert_eq!("5".parse::<EntryId>().unwrap(), EntryId::new(5, 0));
        assert_eq!(EntryId::new(1, u64::MAX).next(), Some(EntryId::new(2, 0)));
        assert_eq!(EntryId::new(2, 0).prev(), Some(EntryId::new(1, u64::MAX)));
        assert_eq!((EntryId::MAX.next(), EntryId::ZERO.prev()), (None, None));
    }

    #[test]
    fn what_no_server_accepts_is_refused() {
        for text in
            ["", "-", "5-", "-5", "-1-0", "5-x", "*", "5-*", "$", ">", "+1-0", "1-+1", " 1-0", "1-0-0"]
        {
            assert!(text.parse::<EntryId>().is_err(), "{text:?}");
        }
        for text in ["99999999999999999999-0", "0-18446744073709551616", "000000000000000000001-0"] {
            assert!(text.parse::<EntryId>().is_err(), "{text:?}");
        }
    }
}
