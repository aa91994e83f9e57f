//! What a checkpoint store keeps for a subscription, and its versioned form.

use std::{fmt, str::FromStr};

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

/// A run of ids, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdRange {
    /// The first id.
    pub first: EntryId,
    /// The last id.
    pub last: EntryId,
}

/// Which entries above the watermark are settled: all up to `top`, but for the holes.
///
/// Empty if nothing above the watermark is settled. Its text form is what stores keep; see [`encode`](Self::encode).
///
/// ```
/// use highwater::{EntryId, SettledAhead};
///
/// // 1 and 4 are not settled yet; 2, 3 and 5 are.
/// let id = |ms| EntryId::new(ms, 0);
/// let ahead = SettledAhead::new(id(5), [id(1), id(4)]);
/// assert!(ahead.contains(id(3)) && !ahead.contains(id(4)) && !ahead.contains(id(6)));
/// assert_eq!(ahead.encode(), "1-0 +3-0 >+1-0");
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SettledAhead {
    top: Option<EntryId>,
    holes: Vec<IdRange>,
}

impl SettledAhead {
    /// Everything above the watermark and up to `top` is settled, but for these ids, which ascend.
    ///
    /// Holes above `top` are left out. Without a hole below `top` the result is empty, since the watermark then is `top`.
    #[must_use]
    pub fn new(top: EntryId, holes: impl IntoIterator<Item = EntryId>) -> Self {
        Self::from_ranges(top, holes.into_iter().map(|id| IdRange { first: id, last: id }))
    }

    /// As [`new`](Self::new), with runs of unsettled ids.
    #[must_use]
    pub fn from_ranges(top: EntryId, holes: impl IntoIterator<Item = IdRange>) -> Self {
        let mut top = top;
        let mut holes: Vec<_> = holes.into_iter().take_while(|hole| hole.first <= top).collect();
        debug_assert!(holes.windows(2).all(|w| w[0].last < w[1].first), "holes ascend");
        // A hole that reaches the top is not settled either: what is settled then ends before it.
        while let Some(hole) = holes.pop_if(|hole| hole.last >= top) {
            top = hole.first.prev().unwrap_or(EntryId::ZERO);
        }
        if holes.is_empty() { Self::default() } else { Self { top: Some(top), holes } }
    }

    /// Whether nothing above the watermark is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    /// The greatest settled id.
    #[must_use]
    pub fn top(&self) -> Option<EntryId> {
        self.top
    }

    /// The runs of ids below the top that are not settled. They ascend.
    #[must_use]
    pub fn holes(&self) -> &[IdRange] {
        &self.holes
    }

    /// Whether an id *above the watermark* is settled.
    #[must_use]
    pub fn contains(&self, id: EntryId) -> bool {
        let Some(top) = self.top else { return false };
        let next_hole = self.holes.partition_point(|hole| hole.last < id);
        id <= top && self.holes.get(next_hole).is_none_or(|hole| id < hole.first)
    }

    /// What of it lies above a watermark.
    fn above(self, watermark: EntryId) -> Self {
        let (Some(top), Some(next)) = (self.top.filter(|top| *top > watermark), watermark.next()) else {
            return Self::default();
        };
        let holes = self.holes.into_iter().filter(|hole| hole.last >= next);
        Self::from_ranges(top, holes.map(|hole| IdRange { first: hole.first.max(next), last: hole.last }))
    }

    /// The text form: the holes as `id` or `id..id`, a space between, then `>` and the top. Empty if nothing is ahead.
    ///
    /// An id is `ms-seq`, or `+d-seq` where its milliseconds are those of the id before it plus `d`.
    #[must_use]
    pub fn encode(&self) -> String {
        self.encode_within(usize::MAX)
    }

    /// As [`encode`](Self::encode) in at most `bytes` bytes.
    ///
    /// What does not fit is left out from the top, which is safe: after a crash it is delivered again.
    #[must_use]
    pub fn encode_within(&self, bytes: usize) -> String {
        let Some(top) = self.top else { return String::new() };
        let mut text = String::new();
        let mut last = None;
        // What the text would be if it ended here: all holes so far and, as top, the id below the next hole.
        let mut fits = String::new();
        for (i, hole) in self.holes.iter().enumerate() {
            if i > 0 {
                text.push(' ');
            }
            push_id(&mut text, &mut last, hole.first);
            if hole.last > hole.first {
                text.push_str("..");
                push_id(&mut text, &mut last, hole.last);
            }
            let end = self.holes.get(i + 1).map_or(Some(top), |next| next.first.prev()).unwrap_or(top);
            if end == hole.last {
                // The next hole touches this one: nothing between them is settled, so the text cannot end here.
                continue;
            }
            let mut closed = text.clone();
            closed.push_str(" >");
            push_id(&mut closed, &mut last.clone(), end);
            if closed.len() > bytes {
                return fits;
            }
            fits = closed;
        }
        fits
    }

    /// The set as its text form keeps it in at most `bytes` bytes.
    #[must_use]
    pub fn truncated(self, bytes: usize) -> Self {
        if self.is_empty() {
            return self;
        }
        Self::decode(&self.encode_within(bytes)).expect("what was encoded can be decoded")
    }

    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if it is anything else.
    pub fn decode(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let corrupt = || corrupt("the settled-ahead set cannot be read").with("ahead", text.escape_debug());
        let (holes, top) = text.rsplit_once(" >").ok_or_else(corrupt)?;
        let mut last = None;
        let mut ranges: Vec<IdRange> = Vec::new();
        for token in holes.split(' ') {
            let (first, end) = token.split_once("..").unwrap_or((token, ""));
            let first = read_id(first, &mut last).ok_or_else(corrupt)?;
            let end = if end.is_empty() { first } else { read_id(end, &mut last).ok_or_else(corrupt)? };
            if first > end || ranges.last().is_some_and(|before| before.last >= first) {
                return Err(corrupt());
            }
            ranges.push(IdRange { first, last: end });
        }
        let top = read_id(top, &mut last).ok_or_else(corrupt)?;
        if ranges.last().is_some_and(|hole| hole.last >= top) {
            return Err(corrupt());
        }
        Ok(Self { top: Some(top), holes: ranges })
    }
}

fn push_id(text: &mut String, last: &mut Option<u64>, id: EntryId) {
    use fmt::Write;
    let written = match last.and_then(|last| id.ms.checked_sub(last)) {
        Some(delta) => write!(text, "+{delta}-{}", id.seq),
        None => write!(text, "{id}"),
    };
    written.expect("writing to a string does not fail");
    *last = Some(id.ms);
}

fn read_id(token: &str, last: &mut Option<u64>) -> Option<EntryId> {
    let id = match token.strip_prefix('+') {
        Some(relative) => {
            let id = EntryId::from_bytes(relative.as_bytes())?;
            EntryId::new((*last)?.checked_add(id.ms)?, id.seq)
        }
        None => EntryId::from_bytes(token.as_bytes())?,
    };
    *last = Some(id.ms);
    Some(id)
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
    /// with the higher watermark is the later. An ordinal or incarnation that the new position does not know is kept where
    /// it still applies.
    #[must_use]
    pub fn merged_into(&self, stored: &Self) -> Option<Self> {
        if (self.watermark, self.ahead.top) < (stored.watermark, stored.ahead.top) {
            return None;
        }
        let same = self.watermark == stored.watermark;
        let merged = Self {
            ordinal: self.ordinal.or(stored.ordinal.filter(|_| same)),
            incarnation: self.incarnation.clone().or_else(|| stored.incarnation.clone()),
            ..self.clone()
        };
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
}

/// The version of the record that this library writes. It reads this one and refuses later ones.
pub const RECORD_VERSION: u32 = 1;

impl Checkpoint {
    /// A record of these parts.
    #[must_use]
    pub fn new(position: Position, epoch: Epoch, owner: Option<ConsumerName>, updated_at: Timestamp) -> Self {
        Self { position, epoch, owner, updated_at }
    }

    /// The record as one line of text, for stores that keep it whole.
    ///
    /// Tab-separated: version, watermark, settled ahead, ordinal, incarnation, epoch, owner, time. An absent value is empty.
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
        let [_, watermark, ahead, ordinal, incarnation, epoch, owner, updated_at] = parts[..] else {
            return Err(corrupt("the checkpoint does not have eight parts"));
        };
        Self::from_parts(&Parts { watermark, ahead, ordinal, incarnation, epoch, owner, updated_at })
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    fn any_ahead() -> impl Strategy<Value = SettledAhead> {
        let part = prop_oneof![0u64..50, any::<u64>()];
        proptest::collection::btree_set((part.clone(), part), 1..40).prop_map(|ids| {
            let ids: Vec<_> = ids.into_iter().map(|(ms, seq)| EntryId::new(ms, seq)).collect();
            let (top, holes) = ids.split_last().expect("at least one");
            SettledAhead::new(*top, holes.iter().copied())
        })
    }

    #[test]
    fn a_hole_at_the_top_is_not_settled() {
        // As after acks of 2 to 4, where 1 and 5 are pending and 5 is the last that was delivered.
        let position = Position::of_group(&[id(1), id(5)], Some(id(5))).unwrap();
        assert!(position.settles(id(4)) && !position.settles(id(5)) && !position.settles(id(1)));
        // Where holes touch, none of them is.
        let run = IdRange { first: id(2), last: id(9) };
        let ahead = SettledAhead::from_ranges(id(5), [IdRange { first: id(1), last: id(1) }, run]);
        assert!(ahead.contains(EntryId::new(1, 7)) && !ahead.contains(id(2)) && !ahead.contains(id(5)));
        assert!(SettledAhead::new(id(5), [id(5)]).is_empty());
    }

    #[test]
    fn holes_that_touch_fit_a_byte_budget_together_or_not_at_all() {
        let hole = |seq| EntryId::new(3, seq);
        let ahead = SettledAhead::new(EntryId::new(3, 9_000_000), [hole(46), hole(47)]);
        for bytes in 0..ahead.encode().len() {
            assert_eq!(ahead.clone().truncated(bytes), SettledAhead::default(), "{bytes}");
        }
        assert_eq!(ahead.clone().truncated(ahead.encode().len()), ahead);
    }

    proptest! {
        #[test]
        fn settled_ahead_survives_its_text_form(ahead in any_ahead()) {
            prop_assert_eq!(&SettledAhead::decode(&ahead.encode())?, &ahead);
        }

        #[test]
        fn a_byte_budget_only_ever_forgets(ahead in any_ahead(), bytes in 0usize..400) {
            let text = ahead.encode_within(bytes);
            prop_assert!(text.len() <= bytes);
            let short = SettledAhead::decode(&text)?;
            for id in ahead.holes.iter().flat_map(|h| [h.first.prev(), Some(h.first), h.last.next()]).flatten() {
                let above_watermark = ahead.holes.first().is_none_or(|h| id >= h.first);
                prop_assert!(!above_watermark || !short.contains(id) || ahead.contains(id), "{} in {}", id, text);
            }
        }

        #[test]
        fn a_checkpoint_survives_its_text_form(ahead in any_ahead(), ms: u64, seq: u64, ordinal: Option<u64>, epoch: u64) {
            let position = Position {
                ahead, ordinal, incarnation: Some(Incarnation::new("a1")?), ..Position::at(EntryId::new(ms, seq))
            };
            let owner = Some(ConsumerName::new("c")?);
            let checkpoint = Checkpoint::new(position, Epoch(epoch), owner, Timestamp::from_millis(7));
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode())?, checkpoint);
        }

        #[test]
        fn garbage_is_refused_and_never_panics(text in ".{0,80}") {
            if let Ok(ahead) = SettledAhead::decode(&text) {
                prop_assert_eq!(SettledAhead::decode(&ahead.encode())?, ahead);
            }
            prop_assert!(Checkpoint::decode(&text).is_err());
        }
    }

    #[test]
    fn a_later_version_is_told_from_garbage() {
        let later = Checkpoint::decode("2\twhatever").unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Corrupt);
        assert!(later.to_string().contains("upgrade"), "{later}");
        assert!(Checkpoint::decode("").unwrap_err().to_string().contains("no version"));
    }

    #[test]
    fn g3_the_watermark_decides_then_what_is_ahead() {
        let ahead = |top| Position::at(id(4)).with_ahead(SettledAhead::new(id(top), [id(5)]));
        assert_eq!(Position::at(id(5)).merged_into(&ahead(9)), Some(Position::at(id(5))));
        assert_eq!(ahead(9).merged_into(&ahead(8)), Some(ahead(9)));
        assert_eq!(ahead(8).merged_into(&ahead(9)), None);
        assert_eq!(Position::at(id(3)).merged_into(&ahead(8)), None);
        assert_eq!(ahead(8).merged_into(&ahead(8)), None, "repeating it changes nothing");
        let counted = Position::at(id(4)).with_ordinal(Some(4));
        assert_eq!(Position::at(id(4)).merged_into(&counted), None, "what is known stays known");
        assert_eq!(counted.merged_into(&Position::at(id(4))), Some(counted.clone()));
        assert_eq!(Position::at(id(5)).merged_into(&counted).unwrap().ordinal, None, "it is that of 4");
    }

    #[test]
    fn a_group_is_settled_up_to_its_smallest_pending_entry() {
        assert_eq!(Position::of_group(&[], None), None);
        assert_eq!(Position::of_group(&[], Some(id(7))), Some(Position::at(id(7))));
        let position = Position::of_group(&[id(3), id(5)], Some(id(7))).unwrap();
        assert_eq!(position.watermark, EntryId::new(2, u64::MAX));
        let settled: Vec<_> = (1..9).filter(|&ms| position.settles(id(ms))).collect();
        assert_eq!(settled, [1, 2, 4, 6, 7]);
    }

    #[test]
    fn fifty_holes_of_a_real_stream_fit_the_budget() {
        let holes = (0..50).map(|n| EntryId::new(1_700_000_000_000 + n * 7, n % 3));
        let ahead = SettledAhead::new(EntryId::new(1_700_000_001_000, 0), holes);
        assert!(ahead.encode().len() < 1024, "{}", ahead.encode().len());
    }
}
