//! Dead letters: entries that could not be handled, kept with all that is known of them.

use std::{
    fmt,
    str::{self, FromStr},
};

use bytes::Bytes;

use crate::{
    ConsumerName, Entry, EntryId, Error, ErrorKind, Fields, Result, StreamName, Subscription,
    clock::Timestamp,
};

/// What an entry died of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeathReason {
    /// The processes that handled it died, too often.
    CrashLoop,
    /// The handler failed as often, or for as long, as it may.
    Exhausted,
    /// The handler panicked the last time that it may.
    Panicked,
    /// It did nothing wrong: an entry of the same key was dead-lettered before it, and it follows in order.
    Parked,
    /// The handler said that it will never succeed.
    Rejected,
    /// The handler took too long the last time that it may.
    TimedOut,
    /// Its payload cannot be decoded.
    Undecodable,
}

impl DeathReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CrashLoop,
        Self::Exhausted,
        Self::Panicked,
        Self::Parked,
        Self::Rejected,
        Self::TimedOut,
        Self::Undecodable,
    ];

    /// The name in a dead letter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CrashLoop => "crash-loop",
            Self::Exhausted => "exhausted",
            Self::Panicked => "panicked",
            Self::Parked => "parked",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed-out",
            Self::Undecodable => "undecodable",
        }
    }
}

impl fmt::Display for DeathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DeathReason {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.name() == name)
            .ok_or_else(|| Error::invalid("there is no such reason of a dead letter").with("reason", name))
    }
}

/// An entry that could not be handled, with all that is known of it.
///
/// In its stream it is an entry whose fields are those of the original, untouched and in order, and behind them one field for
/// each of the rest, whose names begin with `dead.`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Letter {
    /// Where it was to be handled.
    pub subscription: Subscription,
    /// The id of the original entry.
    pub id: EntryId,
    /// The fields of the original entry.
    pub fields: Fields,
    /// What it died of.
    pub reason: DeathReason,
    /// The last error and its sources, in one line.
    pub error: String,
    /// How often a handler was called with it and failed.
    pub attempts: u32,
    /// How often a process died while it handled it.
    pub crashes: u32,
    /// How often it was delivered, by the server's count where it keeps one.
    pub deliveries: u64,
    /// When it failed first.
    pub first_at: Timestamp,
    /// When it was given up.
    pub last_at: Timestamp,
    /// Who gave it up.
    pub consumer: ConsumerName,
    /// The hash of its key, where the consumer parks entries by key.
    pub key: Option<u64>,
}

/// The fields behind those of the original, in this order.
const NAMES: [&str; 12] = [
    "dead.stream",
    "dead.group",
    "dead.id",
    "dead.reason",
    "dead.error",
    "dead.attempts",
    "dead.crashes",
    "dead.deliveries",
    "dead.first_at",
    "dead.last_at",
    "dead.consumer",
    "dead.key",
];

impl Letter {
    /// A letter of an entry of which no more is known than what it died of. Tests of a sink begin with one.
    #[must_use]
    pub fn new(
        subscription: Subscription,
        entry: Entry,
        reason: DeathReason,
        consumer: ConsumerName,
    ) -> Self {
        Self {
            subscription,
            id: entry.id,
            fields: entry.fields,
            reason,
            error: String::new(),
            attempts: 0,
            crashes: 0,
            deliveries: 1,
            first_at: Timestamp::default(),
            last_at: Timestamp::default(),
            consumer,
            key: None,
        }
    }

    /// The fields of the letter in its stream.
    #[must_use]
    pub fn to_fields(&self) -> Fields {
        let values = [
            self.subscription.stream.to_string(),
            self.subscription.group.to_string(),
            self.id.to_string(),
            self.reason.to_string(),
            self.error.clone(),
            self.attempts.to_string(),
            self.crashes.to_string(),
            self.deliveries.to_string(),
            self.first_at.to_string(),
            self.last_at.to_string(),
            self.consumer.to_string(),
            self.key.map(|key| format!("{key:016x}")).unwrap_or_default(),
        ];
        let about = NAMES.iter().map(|name| Bytes::from_static(name.as_bytes())).zip(values.map(Bytes::from));
        Fields::from(self.fields.iter().cloned().chain(about).collect::<Vec<_>>())
    }

    /// Reads a letter from an entry of its stream.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the entry is no dead letter.
    pub fn from_entry(entry: &Entry) -> Result<Self> {
        Self::parse(&entry.fields).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the entry is no dead letter: look at it, and remove it by hand")
                .with("id", entry.id)
        })
    }

    fn parse(fields: &Fields) -> Option<Self> {
        let all: Vec<_> = fields.iter().cloned().collect();
        let (own, about) = all.split_at_checked(all.len().checked_sub(NAMES.len())?)?;
        if about.iter().zip(NAMES).any(|((name, _), expected)| name != expected) {
            return None;
        }
        let texts: Option<Vec<&str>> = about.iter().map(|(_, value)| str::from_utf8(value).ok()).collect();
        let texts: [&str; NAMES.len()] = texts?.try_into().ok()?;
        let [
            stream,
            group,
            id,
            reason,
            error,
            attempts,
            crashes,
            deliveries,
            first_at,
            last_at,
            consumer,
            key,
        ] = texts;
        Some(Self {
            subscription: Subscription::new(stream, group).ok()?,
            id: id.parse().ok()?,
            fields: Fields::from(own.to_vec()),
            reason: reason.parse().ok()?,
            error: error.to_owned(),
            attempts: attempts.parse().ok()?,
            crashes: crashes.parse().ok()?,
            deliveries: deliveries.parse().ok()?,
            first_at: Timestamp::from_millis(first_at.parse().ok()?),
            last_at: Timestamp::from_millis(last_at.parse().ok()?),
            consumer: ConsumerName::new(consumer).ok()?,
            key: match key {
                "" => None,
                key => Some(u64::from_str_radix(key, 16).ok()?),
            },
        })
    }
}

/// The stream of a subscription's dead letters, where no other is set: in the hash slot of the stream wherever that can be told
/// from its name, so that a cluster moves an entry there in one step.
///
/// ```
/// use highwater::{Subscription, dead_letter_stream};
///
/// let name = dead_letter_stream(&Subscription::new("orders", "billing")?)?;
/// assert_eq!(name.as_str(), "{orders}:dead:billing");
/// # Ok::<(), highwater::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Invalid`] if that name would be too long: set another one.
pub fn dead_letter_stream(subscription: &Subscription) -> Result<StreamName> {
    let Subscription { stream, group } = subscription;
    // A name with a hash tag keeps it; one with other braces has none that could be written down.
    let braced =
        if stream.as_str().contains(['{', '}']) { stream.to_string() } else { format!("{{{stream}}}") };
    StreamName::new(format!("{braced}:dead:{group}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(fields: Fields) -> Letter {
        Letter {
            subscription: Subscription::new("orders", "billing").unwrap(),
            id: EntryId::new(7, 1),
            fields,
            reason: DeathReason::Exhausted,
            error: "no such customer".to_owned(),
            attempts: 5,
            crashes: 1,
            deliveries: 9,
            first_at: Timestamp::from_millis(10),
            last_at: Timestamp::from_millis(20),
            consumer: ConsumerName::new("c").unwrap(),
            key: Some(u64::MAX),
        }
    }

    #[test]
    fn g11_a_letter_keeps_fields_of_any_kind_untouched() {
        let plain = Fields::from_iter([("kind", "order"), ("kind", ""), ("", "again")]);
        let mut odd: Vec<(Bytes, Bytes)> = vec![(Bytes::from_static(b"\xff\0"), Bytes::from_static(b"\xfe"))];
        odd.push((Bytes::from("dead.id"), Bytes::from("mine")));
        for fields in [plain, Fields::from(odd)] {
            let letter = letter(fields);
            let entry = Entry::new(EntryId::new(99, 0), letter.to_fields());
            assert_eq!(Letter::from_entry(&entry).unwrap(), letter);
            // Also of a letter of a letter.
            let nested = Letter { fields: letter.to_fields(), key: None, ..letter };
            let entry = Entry::new(EntryId::new(100, 0), nested.to_fields());
            assert_eq!(Letter::from_entry(&entry).unwrap(), nested);
        }
    }

    #[test]
    fn g18_what_is_no_letter_is_told() {
        let good = letter(Fields::from_iter([("kind", "order")])).to_fields();
        let cut: Vec<_> = good.iter().take(good.len() - 1).cloned().collect();
        let mut swapped: Vec<_> = good.iter().cloned().collect();
        swapped.swap(1, 2);
        for fields in [Fields::default(), Fields::from(cut), Fields::from(swapped)] {
            let error = Letter::from_entry(&Entry::new(EntryId::new(1, 0), fields)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn letters_lie_beside_their_stream() {
        for (stream, expected) in
            [("orders", "{orders}:dead:g"), ("a{b}c", "a{b}c:dead:g"), ("a}b", "a}b:dead:g")]
        {
            let name = dead_letter_stream(&Subscription::new(stream, "g").unwrap()).unwrap();
            assert_eq!(name.as_str(), expected);
        }
        let long = Subscription::new("s".repeat(512), "g").unwrap();
        assert_eq!(dead_letter_stream(&long).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
