//! What is settled above the watermark, and its text form.

use std::fmt;

use super::corrupt;
use crate::{EntryId, Result};

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
    pub(super) top: Option<EntryId>,
    pub(super) holes: Vec<IdRange>,
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
    pub(super) fn above(self, watermark: EntryId) -> Self {
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
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if it is anything else.
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

/// What is in a run of both. Runs ascend.
pub(super) fn common(one: &[IdRange], other: &[IdRange]) -> Vec<IdRange> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut common = Vec::new();
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        let (first, last) = (a.first.max(b.first), a.last.min(b.last));
        if first <= last {
            common.push(IdRange { first, last });
        }
        // What ends first can meet nothing more.
        if a.last == last {
            one.next()
        } else {
            other.next()
        };
    }
    common
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
