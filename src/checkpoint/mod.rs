//! What a checkpoint store keeps for a subscription, and its versioned form.

mod ahead;

use std::{fmt, str::FromStr};

pub use ahead::{IdRange, SettledAhead};

use crate::{ConsumerName, EntryId, Error, ErrorKind, Result, clock::Timestamp};

/// A fencing token. It grows each time ownership of a subscription is taken, or the checkpoint is reset.
///
/// `0` is the epoch of a subscription that nobody owned or reset yet.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one life of a stream, where the backend can: a stream that was deleted and created again has another one.
///
/// At most 64 bytes of ASCII without spaces.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Incarnation(String);

impl Incarnation {
    /// Checks and takes a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it is empty, longer than 64 bytes, or not visible ASCII.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid("an incarnation is 1 to 64 bytes of visible ASCII"));
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far a subscription is settled.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Position {
    /// Every entry with an id up to and including this one is settled.
    pub watermark: EntryId,
    /// What is settled above the watermark.
    pub ahead: SettledAhead,
    /// How many entries were ever added to the stream up to the watermark, if known. It tells how many entries were lost
    /// where the stream was trimmed, and that a stream was created anew.
    pub ordinal: Option<u64>,
    /// The life of the stream that the ids belong to, if the backend can name it.
    pub incarnation: Option<Incarnation>,
}

impl Position {
    /// Everything up to this watermark is settled, and nothing above it.
    #[must_use]
    pub fn at(watermark: EntryId) -> Self {
        Self { watermark, ..Self::default() }
    }

    /// What a group's pending list says: all that was delivered is settled, but for what is pending.
    ///
    /// `pending` ascends and starts with the smallest pending id; it may stop early. `delivered` is an id up to which the
    /// group has delivered. `None` where nothing is known of either.
    #[must_use]
    pub fn of_group(pending: &[EntryId], delivered: Option<EntryId>) -> Option<Self> {
        match pending.first() {
            Some(first) => {
                let watermark = first.prev().unwrap_or(EntryId::ZERO);
                let top = delivered.unwrap_or(EntryId::ZERO);
                Some(Self { ahead: SettledAhead::new(top, pending.iter().copied()), ..Self::at(watermark) })
            }
            None => delivered.map(Self::at),
        }
    }

    /// With a higher watermark, of unknown ordinal; what is settled ahead of it still is. Where no hole is left ahead, the
    /// watermark is the top of it.
    #[must_use]
    pub fn at_watermark(self, watermark: EntryId) -> Self {
        let top = self.ahead.top.filter(|top| *top > watermark);
        let ahead = self.ahead.above(watermark);
        // Without a hole left, all up to the top is settled.
        let watermark = top.filter(|_| ahead.is_empty()).unwrap_or(watermark);
        Self { watermark, ahead, ordinal: None, ..self }
    }

    /// With all that another position of the same epoch has as settled, unless it names another life of the stream.
    ///
    /// A group that was created anew has entries pending that were settled before. Until they are acked again, where it stands
    /// says less than is known.
    ///
    /// ```
    /// use highwater::{EntryId, Position, SettledAhead};
    ///
    /// let id = |ms| EntryId::new(ms, 0);
    /// let known = Position::at(id(3)).with_ahead(SettledAhead::new(id(5), [id(4)]));
    /// // 5 is pending again, and 4 and 7 are settled now.
    /// let group = Position::at(id(4)).with_ahead(SettledAhead::new(id(7), [id(5), id(6)]));
    /// assert_eq!(group.joined(&known), Position::at(id(4)).with_ahead(SettledAhead::new(id(7), [id(6)])));
    /// # Ok::<(), highwater::Error>(())
    /// ```
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        if self.incarnation.is_some() && other.incarnation.is_some() && self.incarnation != other.incarnation
        {
            return self.clone();
        }
        let mut open = ahead::common(&self.open(), &other.open());
        let first = open.first().map_or(EntryId::MAX, |run| run.first.prev().unwrap_or(EntryId::ZERO));
        // The last run has no end.
        let top = open.pop().map_or(EntryId::MAX, |run| run.first.prev().unwrap_or(EntryId::ZERO));
        let ahead = SettledAhead::from_ranges(top, open);
        let watermark = if ahead.is_empty() { first } else { self.watermark.max(other.watermark) };
        let of = [self, other].into_iter().filter(|position| position.watermark == watermark);
        Self {
            watermark,
            ahead,
            ordinal: of.filter_map(|position| position.ordinal).next(),
            incarnation: self.incarnation.clone().or_else(|| other.incarnation.clone()),
        }
    }

    /// The runs of ids that are not settled.
    fn open(&self) -> Vec<IdRange> {
        let end = self.ahead.top.unwrap_or(self.watermark);
        let rest = end.next().map(|first| IdRange { first, last: EntryId::MAX });
        self.ahead.holes.iter().copied().chain(rest).collect()
    }

    /// With this ordinal.
    #[must_use]
    pub fn with_ordinal(mut self, ordinal: Option<u64>) -> Self {
        self.ordinal = ordinal;
        self
    }

    /// In this life of the stream.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// With this much settled above the watermark.
    #[must_use]
    pub fn with_ahead(mut self, ahead: SettledAhead) -> Self {
        self.ahead = ahead;
        self
    }

    /// Whether an entry of this id is settled.
    #[must_use]
    pub fn settles(&self, id: EntryId) -> bool {
        id <= self.watermark || self.ahead.contains(id)
    }

    /// The record that an advance to this position leaves where `stored` stands; `None` if it leaves it as it is.
    ///
    /// The rule that every store applies, so that a stored watermark never moves back: a higher watermark wins, then a higher
    /// top of what is settled ahead. In one epoch all positions of a subscription are true facts about it, so of two the one
    /// with the higher watermark is the later. What it does not know is kept where it still applies: an ordinal, an
    /// incarnation, and what was settled ahead beyond it, which makes the watermark jump where no hole is left below.
    #[must_use]
    pub fn merged_into(&self, stored: &Self) -> Option<Self> {
        if (self.watermark, self.ahead.top) < (stored.watermark, stored.ahead.top) {
            return None;
        }
        let same = self.watermark == stored.watermark;
        let mut merged = Self {
            ordinal: self.ordinal.or(stored.ordinal.filter(|_| same)),
            incarnation: self.incarnation.clone().or_else(|| stored.incarnation.clone()),
            ..self.clone()
        };
        if let Some(top) = stored.ahead.top.filter(|&top| top > self.watermark && Some(top) > self.ahead.top)
        {
            merged.ahead = stored.ahead.clone().above(self.watermark);
            if merged.ahead.is_empty() {
                (merged.watermark, merged.ordinal) = (top, None);
            }
        }
        (merged != *stored).then_some(merged)
    }
}

/// The durable record of a subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// How far the subscription is settled.
    pub position: Position,
    /// The epoch that was issued last: the one that an advance must hold.
    pub epoch: Epoch,
    /// Who wrote it last, if anybody.
    pub owner: Option<ConsumerName>,
    /// When it was written, by the store's clock.
    pub updated_at: Timestamp,
    /// Whether nobody is to consume the subscription.
    pub paused: bool,
    /// Why it was reset, paused or unpaused the last time, if a reason was given.
    pub reason: Option<String>,
}

/// The version of the record that this library writes. It reads this one and refuses later ones.
pub const RECORD_VERSION: u32 = 1;

impl Checkpoint {
    /// A record of these parts.
    #[must_use]
    pub fn new(position: Position, epoch: Epoch, owner: Option<ConsumerName>, updated_at: Timestamp) -> Self {
        Self { position, epoch, owner, updated_at, paused: false, reason: None }
    }

    /// As an operator left it.
    #[must_use]
    pub fn operated(mut self, paused: bool, reason: Option<String>) -> Self {
        (self.paused, self.reason) = (paused, reason);
        self
    }

    /// The record as one line of text, for stores that keep it whole.
    ///
    /// Tab-separated: version, watermark, settled ahead, ordinal, incarnation, epoch, owner, time,
    /// whether it is paused (`1`), reason. An absent value is empty.
    #[must_use]
    pub fn encode(&self) -> String {
        let p = &self.position;
        [
            RECORD_VERSION.to_string(),
            p.watermark.to_string(),
            p.ahead.encode(),
            p.ordinal.map(|o| o.to_string()).unwrap_or_default(),
            p.incarnation.as_ref().map(|i| i.as_str().to_owned()).unwrap_or_default(),
            self.epoch.to_string(),
            self.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.updated_at.to_string(),
            if self.paused { "1".to_owned() } else { String::new() },
            self.reason.clone().unwrap_or_default(),
        ]
        .join("\t")
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if it is garbage or of a later version.
    pub fn decode(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('\t').collect();
        check_version(parts[0])?;
        let [_, watermark, ahead, ordinal, incarnation, epoch, owner, updated_at, paused, reason] = parts[..]
        else {
            return Err(corrupt("the checkpoint does not have ten parts"));
        };
        let parts =
            Parts { watermark, ahead, ordinal, incarnation, epoch, owner, updated_at, paused, reason };
        Self::from_parts(&parts)
    }

    /// Reads a record from its parts, for stores that keep them in columns. An absent value is empty.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if a part cannot be read.
    pub fn from_parts(parts: &Parts<'_>) -> Result<Self> {
        let watermark = EntryId::from_bytes(parts.watermark.as_bytes()).ok_or_else(|| {
            corrupt("the watermark cannot be read").with("watermark", parts.watermark.escape_debug())
        })?;
        let position = Position {
            watermark,
            ahead: SettledAhead::decode(parts.ahead)?,
            ordinal: optional("ordinal", parts.ordinal)?,
            incarnation: optional_with(parts.incarnation, |i| Incarnation::new(i))?,
        };
        Ok(Self {
            position,
            epoch: Epoch(number("epoch", parts.epoch)?),
            owner: optional_with(parts.owner, |name| ConsumerName::new(name))?,
            updated_at: Timestamp::from_millis(number("updated_at", parts.updated_at)?),
            paused: match parts.paused {
                "" => false,
                "1" => true,
                other => return Err(corrupt("`paused` cannot be read").with("paused", other.escape_debug())),
            },
            reason: optional_with(parts.reason, |reason| check_reason(reason).map(|()| reason.to_owned()))?,
        })
    }
}

/// The parts of a stored checkpoint as text; an absent value is empty.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "each is the text of the part of `Checkpoint` that has its name")]
pub struct Parts<'a> {
    pub watermark: &'a str,
    pub ahead: &'a str,
    pub ordinal: &'a str,
    pub incarnation: &'a str,
    pub epoch: &'a str,
    pub owner: &'a str,
    pub updated_at: &'a str,
    pub paused: &'a str,
    pub reason: &'a str,
}

/// Checks a reason for a reset.
pub(crate) fn check_reason(reason: &str) -> Result<()> {
    if reason.len() > 128 || reason.contains(char::is_control) {
        return Err(Error::invalid("a reason is at most 128 bytes without control characters"));
    }
    Ok(())
}

/// Checks the version of a stored record.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] if it is no number or of a later version.
pub fn check_version(version: &str) -> Result<()> {
    match number::<u32>("version", version) {
        Ok(1..=RECORD_VERSION) => Ok(()),
        Ok(later) if later > RECORD_VERSION => Err(Error::new(
            ErrorKind::Corrupt,
            "a newer version of this library wrote the checkpoint: upgrade before you go on",
        )
        .with("version", later)
        .with("supported", RECORD_VERSION)),
        _ => Err(corrupt("the checkpoint has no version").with("version", version.escape_debug())),
    }
}

fn corrupt(message: &'static str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{message}: look at the record, then restore it, or remove it to start anew"),
    )
}

fn number<T: FromStr>(name: &'static str, text: &str) -> Result<T> {
    let unsigned = text.parse().ok().filter(|_| !text.starts_with('+'));
    unsigned.ok_or_else(|| corrupt("a part of the checkpoint is no number").with(name, text.escape_debug()))
}

fn optional<T: FromStr>(name: &'static str, text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { number(name, text).map(Some) }
}

fn optional_with<T>(text: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    read(text).map(Some).map_err(|error| corrupt("a name in the checkpoint is not valid").with_source(error))
}

#[cfg(test)]
mod tests;
