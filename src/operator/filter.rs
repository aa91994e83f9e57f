//! Which dead letters.

use crate::{DeathReason, EntryId, Letter, clock::Timestamp};

/// Which dead letters: those to which all that is set applies. The default is all of them.
///
/// ```
/// use highwater::{DeathReason, LetterFilter};
///
/// let timeouts = LetterFilter::default().reason(DeathReason::TimedOut).error("payment service");
/// # let _ = timeouts;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterFilter {
    /// Those of these entries, by their original ids.
    pub ids: Option<Vec<EntryId>>,
    /// Those that died of one of these.
    pub reasons: Option<Vec<DeathReason>>,
    /// Those with this hash of their key.
    pub key: Option<u64>,
    /// Those that were given up at this time or later.
    pub from: Option<Timestamp>,
    /// Those that were given up before this time.
    pub until: Option<Timestamp>,
    /// Those whose error has this text in it.
    pub error: Option<String>,
}

impl LetterFilter {
    /// The letter of this entry, by its original id; or also of this one.
    #[must_use]
    pub fn id(mut self, id: EntryId) -> Self {
        self.ids.get_or_insert_default().push(id);
        self
    }

    /// Those that died of this; or also of this.
    #[must_use]
    pub fn reason(mut self, reason: DeathReason) -> Self {
        self.reasons.get_or_insert_default().push(reason);
        self
    }

    /// Those with this hash of their key: see [`Letter::key`].
    #[must_use]
    pub fn key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Those that were given up at this time or later.
    #[must_use]
    pub fn from(mut self, time: Timestamp) -> Self {
        self.from = Some(time);
        self
    }

    /// Those that were given up before this time.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        self.until = Some(time);
        self
    }

    /// Those whose error has this text in it.
    #[must_use]
    pub fn error(mut self, text: impl Into<String>) -> Self {
        self.error = Some(text.into());
        self
    }

    /// Whether all that is set applies to this letter.
    #[must_use]
    pub fn matches(&self, letter: &Letter) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&letter.id))
            && self.reasons.as_ref().is_none_or(|reasons| reasons.contains(&letter.reason))
            && self.key.is_none_or(|key| letter.key == Some(key))
            && self.from.is_none_or(|from| letter.last_at >= from)
            && self.until.is_none_or(|until| letter.last_at < until)
            && self.error.as_ref().is_none_or(|text| letter.error.contains(text))
    }
}
