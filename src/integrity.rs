//! Holds a checkpoint against the stream: were entries lost, is it still the same stream?

use std::fmt;

use crate::{EntryId, Error, ErrorKind, Position, backend::StreamState};

/// What can be wrong between a checkpoint and its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Entries left the stream before they were settled.
    Gap(Gap),
    /// The stream is not the one that the checkpoint was taken from.
    Reset(Reset),
}

/// Entries that left the stream before they were settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The last id before the gap.
    pub after: EntryId,
    /// The first id behind the gap that is still there; `None` if the stream ends with the gap.
    pub before: Option<EntryId>,
    /// How many entries are gone.
    pub lost: Lost,
}

impl Gap {
    /// A gap between these ids.
    #[must_use]
    pub fn new(after: EntryId, before: Option<EntryId>, lost: Lost) -> Self {
        Self { after, before, lost }
    }
}

/// How many entries are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// This many.
    Exactly(u64),
    /// This many or more. `0` where the server cannot tell whether anything was lost.
    AtLeast(u64),
}

impl Lost {
    /// The number, exact or not.
    #[must_use]
    pub fn count(self) -> u64 {
        match self {
            Self::Exactly(count) | Self::AtLeast(count) => count,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(count) => write!(f, "{count}"),
            Self::AtLeast(count) => write!(f, "at least {count}"),
        }
    }
}

/// A checkpoint that was not taken from this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reset {
    /// How it shows.
    pub reason: ResetReason,
    /// The watermark of the checkpoint.
    pub watermark: EntryId,
    /// The last id that the stream gave out; `None` if there is no stream.
    pub last: Option<EntryId>,
}

/// How it shows that a checkpoint was not taken from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetReason {
    /// The stream ends before the checkpoint: it was created anew, or a failover lost its tail.
    Behind,
    /// The backend says that it is another life of the stream.
    Incarnation,
    /// There is no stream.
    Missing,
    /// Ids are beyond the checkpoint, yet fewer entries were ever added, or removed, than the checkpoint has seen.
    Overtaken,
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Behind => "the stream ends before the checkpoint",
            Self::Incarnation => "the stream was created anew",
            Self::Missing => "the stream does not exist",
            Self::Overtaken => "the stream was created anew and has overtaken the checkpoint",
        })
    }
}

impl From<Finding> for Error {
    fn from(finding: Finding) -> Self {
        match &finding {
            Finding::Gap(gap) => Error::new(
                ErrorKind::Gap,
                "entries left the stream before they were settled: restore them, or go on without them with `OnGap::Skip`",
            )
            .with("after", gap.after)
            .with("before", gap.before.map_or_else(|| "the end".to_owned(), |id| id.to_string()))
            .with("lost", gap.lost),
            Finding::Reset(reset) => Error::new(
                ErrorKind::Reset,
                "the checkpoint does not belong to this stream: restore the stream, reset the checkpoint, or choose another `OnReset`",
            )
            .with("reason", reset.reason)
            .with("watermark", reset.watermark)
            .with("last", reset.last.map_or_else(|| "none".to_owned(), |id| id.to_string())),
        }
        .with_finding(finding)
    }
}

/// Holds a position against the stream as it is now. `None`: nothing is missing.
///
/// Exact where the ordinal of the watermark and the stream's counters are known. Deletions in the middle of the stream show
/// only when the reader reaches its end: see [`check_tail`].
///
/// ```
/// use highwater::{EntryId, Position, backend::StreamState, integrity::{self, Finding, Lost}};
///
/// // 50 of 100 entries were settled, and 70 were removed.
/// let position = Position::at(EntryId::new(50, 0)).with_ordinal(Some(50));
/// let mut stream = StreamState::new(EntryId::new(100, 0), 30);
/// (stream.first_id, stream.entries_added) = (Some(EntryId::new(71, 0)), Some(100));
///
/// let Some(Finding::Gap(gap)) = integrity::check(&position, Some(&stream)) else { panic!("20 entries are lost") };
/// assert_eq!((gap.lost, gap.before), (Lost::Exactly(20), Some(EntryId::new(71, 0))));
/// ```
#[must_use]
pub fn check(position: &Position, stream: Option<&StreamState>) -> Option<Finding> {
    let watermark = position.watermark;
    if watermark == EntryId::ZERO && position.ahead.is_empty() {
        // Nothing is settled, so any stream will do. What was removed since the subscription began is missing all the same.
        let (stream, ordinal) = (stream?, position.ordinal?);
        let same = position.incarnation.is_none() || position.incarnation == stream.incarnation;
        let lost = stream.entries_added?.checked_sub(stream.len)?.checked_sub(ordinal)?;
        return (same && lost > 0)
            .then(|| Finding::Gap(Gap::new(watermark, stream.first_id, Lost::Exactly(lost))));
    }
    let reset = |reason| Some(Finding::Reset(Reset { reason, watermark, last: stream.map(|s| s.last_id) }));
    let Some(stream) = stream else { return reset(ResetReason::Missing) };
    if let (Some(stored), Some(now)) = (&position.incarnation, &stream.incarnation)
        && stored != now
    {
        return reset(ResetReason::Incarnation);
    }
    if stream.last_id < watermark.max(position.ahead.top().unwrap_or_default()) {
        return reset(ResetReason::Behind);
    }
    if let (Some(ordinal), Some(added)) = (position.ordinal, stream.entries_added)
        && added < ordinal
    {
        return reset(ResetReason::Overtaken);
    }
    // Trimming takes the oldest first. While an entry at or below the watermark is there, none above it was trimmed.
    if stream.first_id.is_some_and(|first| first <= watermark) {
        return None;
    }
    let gap = |lost| Some(Finding::Gap(Gap::new(watermark, stream.first_id, lost)));
    // All up to the watermark are gone. Were they all that is gone?
    let removed = stream.entries_added.map(|added| added.saturating_sub(stream.len));
    if let Some(hole) = position.ahead.holes().first() {
        let is_gone = |id: EntryId| stream.first_id.is_none_or(|first| first > id);
        // A run that was read in part begins behind what was read of it, where there may be no entry. It ends with one.
        let lost = position.ahead.holes().iter().filter(|hole| is_gone(hole.last)).count() as u64;
        return match position.ordinal.zip(removed) {
            _ if !is_gone(hole.first) => None,
            Some((ordinal, removed)) if removed < ordinal => reset(ResetReason::Overtaken),
            Some((ordinal, removed)) if removed == ordinal => None,
            Some(_) => gap(Lost::AtLeast(lost.max(1))),
            None => gap(Lost::AtLeast(lost)),
        };
    }
    match (position.ordinal, removed) {
        (Some(ordinal), Some(removed)) if removed < ordinal => reset(ResetReason::Overtaken),
        (Some(ordinal), Some(removed)) if removed > ordinal => gap(Lost::Exactly(removed - ordinal)),
        (Some(_), Some(_)) => None,
        // Nothing was ever removed, so nothing above the watermark was.
        (None, Some(0)) => None,
        // The last entry ever added is the one at the watermark, or it is gone.
        _ if stream.last_id == watermark => None,
        _ => gap(Lost::AtLeast(0)),
    }
}

/// Holds what a reader of *every* entry has counted against the stream, where it has read to the end.
///
/// `read` is the last id it read and `ordinal` how many entries were ever added up to it, by its own count. `None` if
/// nothing is missing, or the reader is not at the end.
#[must_use]
pub fn check_tail(read: EntryId, ordinal: u64, stream: &StreamState) -> Option<Gap> {
    let added = stream.entries_added?;
    (stream.last_id == read && added > ordinal).then(|| Gap::new(read, None, Lost::Exactly(added - ordinal)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdRange, Incarnation, SettledAhead};

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    /// A stream that ends at `last`, to which `added` entries were added and which still holds `len` from `first` on.
    fn stream(first: u64, last: u64, len: u64, added: u64) -> StreamState {
        let mut state = StreamState::new(id(last), len);
        state.first_id = (len > 0).then(|| id(first));
        state.entries_added = Some(added);
        state
    }

    fn at(watermark: u64, ordinal: u64) -> Position {
        Position::at(id(watermark)).with_ordinal(Some(ordinal))
    }

    fn lost(finding: Option<Finding>) -> Option<Lost> {
        match finding {
            Some(Finding::Gap(gap)) => Some(gap.lost),
            None => None,
            Some(Finding::Reset(reset)) => panic!("{reset:?}"),
        }
    }

    fn reason(finding: Option<Finding>) -> ResetReason {
        match finding {
            Some(Finding::Reset(reset)) => reset.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn g7_a_gap_is_counted() {
        assert_eq!(lost(check(&at(50, 50), Some(&stream(1, 100, 100, 100)))), None, "nothing removed");
        assert_eq!(
            lost(check(&at(50, 50), Some(&stream(51, 100, 50, 100)))),
            None,
            "trimmed up to the watermark"
        );
        assert_eq!(lost(check(&at(50, 50), Some(&stream(71, 100, 30, 100)))), Some(Lost::Exactly(20)));
        assert_eq!(
            lost(check(&at(50, 50), Some(&stream(0, 100, 0, 100)))),
            Some(Lost::Exactly(50)),
            "trimmed to nothing"
        );
        assert_eq!(
            lost(check(&at(100, 100), Some(&stream(0, 100, 0, 100)))),
            None,
            "all settled, then trimmed"
        );
    }

    #[test]
    fn g7_without_an_ordinal_a_possible_gap_is_not_silent() {
        let position = Position::at(id(50));
        assert_eq!(lost(check(&position, Some(&stream(51, 100, 50, 50)))), None, "nothing was ever removed");
        assert_eq!(lost(check(&position, Some(&stream(71, 100, 30, 100)))), Some(Lost::AtLeast(0)));
        assert_eq!(lost(check(&Position::at(id(100)), Some(&stream(0, 100, 0, 100)))), None);
    }

    #[test]
    fn g7_a_hole_that_was_trimmed_is_a_gap() {
        let position = Position::at(id(49)).with_ahead(SettledAhead::new(id(60), [id(50), id(55)]));
        assert_eq!(lost(check(&position, Some(&stream(50, 100, 51, 100)))), None);
        assert_eq!(lost(check(&position, Some(&stream(51, 100, 50, 100)))), Some(Lost::AtLeast(1)));
        assert_eq!(lost(check(&position, Some(&stream(71, 100, 30, 100)))), Some(Lost::AtLeast(2)));
    }

    /// Found by the model: of entries 5 to 8, 5 and 6 were read again and settled, and an id behind 6 is none of an entry.
    #[test]
    fn g7_a_run_that_was_read_in_part_need_not_begin_with_an_entry() {
        let run = IdRange { first: id(6).next().unwrap(), last: id(8) };
        let position = |ordinal| {
            Position::at(id(6)).with_ahead(SettledAhead::from_ranges(id(9), [run])).with_ordinal(ordinal)
        };
        let lost_of = |ordinal, first| {
            let stream = stream(first, 20, 21 - first, 20);
            lost(check(&position(ordinal), Some(&stream)))
        };
        assert_eq!(lost_of(Some(6), 7), None, "5 and 6 were trimmed, and nothing else");
        assert_eq!(lost_of(Some(6), 8), Some(Lost::AtLeast(1)), "7 as well");
        assert_eq!(lost_of(Some(6), 9), Some(Lost::AtLeast(1)));
        assert_eq!(lost_of(None, 6), None);
        assert_eq!(lost_of(None, 7), Some(Lost::AtLeast(0)), "who does not count cannot tell");
        assert_eq!(lost_of(None, 9), Some(Lost::AtLeast(1)));
        let anew = stream(7, 20, 15, 20);
        assert_eq!(reason(check(&position(Some(6)), Some(&anew))), ResetReason::Overtaken);
    }

    #[test]
    fn g8_another_stream_is_told() {
        assert_eq!(reason(check(&at(50, 50), None)), ResetReason::Missing);
        assert_eq!(reason(check(&at(50, 50), Some(&stream(1, 49, 49, 49)))), ResetReason::Behind);
        assert_eq!(
            reason(check(&at(50, 50), Some(&stream(51, 60, 2, 2)))),
            ResetReason::Overtaken,
            "fewer were added"
        );
        assert_eq!(
            reason(check(&at(50, 50), Some(&stream(51, 200, 99, 99)))),
            ResetReason::Overtaken,
            "fewer are gone"
        );
        let named = |name: &str| Some(Incarnation::new(name).unwrap());
        let mut state = stream(1, 100, 100, 100);
        state.incarnation = named("new");
        assert_eq!(
            reason(check(&at(50, 50).with_incarnation(named("old")), Some(&state))),
            ResetReason::Incarnation
        );
        assert_eq!(check(&at(50, 50).with_incarnation(named("new")), Some(&state)), None);
    }

    #[test]
    fn nothing_settled_nothing_missing() {
        assert_eq!(check(&Position::default(), None), None);
        assert_eq!(check(&Position::default(), Some(&stream(71, 100, 30, 100))), None);
    }

    #[test]
    fn g7_at_the_end_of_the_stream_deletions_in_the_middle_show() {
        let state = stream(1, 100, 97, 100);
        assert_eq!(check_tail(id(99), 96, &state), None, "not at the end");
        assert_eq!(check_tail(id(100), 100, &state), None, "deleted after it was read");
        assert_eq!(check_tail(id(100), 97, &state).unwrap().lost, Lost::Exactly(3));
    }
}
