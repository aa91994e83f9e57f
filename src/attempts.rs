//! What is remembered of an entry whose handling failed or crashed, and its text form.

use std::fmt;

use crate::{DeathReason, EntryId, Error, ErrorKind, Result, clock::Timestamp};

/// The most bytes of an error that are kept.
const ERROR_MAX: usize = 512;

/// How often an entry was attempted in vain. It survives the process: kept beside the checkpoint, and only of entries that
/// failed, or that a process may have died of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempts {
    /// Which entry.
    pub id: EntryId,
    /// How often a handler failed with it.
    pub failures: u32,
    /// How often a process died while it handled it, as far as that is known. Includes the attempt that is under way.
    pub crashes: u32,
    /// When it failed first.
    pub first_at: Option<Timestamp>,
    /// It was given up: nobody may handle it any more, and it is still to be dead-lettered.
    pub doom: Option<Doom>,
}

/// Why an entry was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Doom {
    /// What kind of failure.
    pub reason: DeathReason,
    /// The error and its sources, in one line.
    pub error: String,
}

impl Doom {
    /// Given up for this. A long error is cut.
    #[must_use]
    pub fn new(reason: DeathReason, error: impl fmt::Display) -> Self {
        let mut error: String =
            error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        error.truncate(error.floor_char_boundary(ERROR_MAX));
        Self { reason, error }
    }
}

impl Attempts {
    /// None yet.
    #[must_use]
    pub fn new(id: EntryId) -> Self {
        Self { id, failures: 0, crashes: 0, first_at: None, doom: None }
    }

    /// Whether there is anything to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.failures == 0 && self.crashes == 0 && self.doom.is_none()
    }

    /// All but the id as text: failures, crashes, first time, and reason and error where it was given up, separated by spaces.
    #[must_use]
    pub fn encode(&self) -> String {
        let first_at = self.first_at.unwrap_or_default();
        let counts = format!("{} {} {first_at}", self.failures, self.crashes);
        match &self.doom {
            Some(doom) => format!("{counts} {} {}", doom.reason, doom.error),
            None => counts,
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if it cannot be read.
    pub fn decode(id: EntryId, text: &str) -> Result<Self> {
        Self::parse(id, text).ok_or_else(|| {
            let message =
                "the attempts at an entry cannot be read: remove the record of the entry to start anew";
            Error::new(ErrorKind::Corrupt, message).with("id", id).with("record", text.escape_debug())
        })
    }

    fn parse(id: EntryId, text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ' ');
        let failures = parts.next()?.parse().ok()?;
        let crashes = parts.next()?.parse().ok()?;
        let first_at: u64 = parts.next()?.parse().ok()?;
        let doom = match parts.next() {
            Some(reason) => Some(Doom { reason: reason.parse().ok()?, error: parts.next()?.to_owned() }),
            None => None,
        };
        let first_at = (first_at > 0).then(|| Timestamp::from_millis(first_at));
        Some(Self { id, failures, crashes, first_at, doom })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let id = EntryId::new(5, 0);
        let plain = Attempts { failures: 3, crashes: 1, ..Attempts::new(id) };
        let timed = Attempts { first_at: Some(Timestamp::from_millis(7)), ..plain.clone() };
        let doomed =
            Attempts { doom: Some(Doom::new(DeathReason::Rejected, "no\tfield  `x`")), ..timed.clone() };
        let silent = Attempts { doom: Some(Doom::new(DeathReason::CrashLoop, "")), ..plain.clone() };
        for attempts in [Attempts::new(id), plain, timed, doomed, silent] {
            assert_eq!(Attempts::decode(id, &attempts.encode()).unwrap(), attempts, "{}", attempts.encode());
        }
    }

    #[test]
    fn garbage_is_corrupt() {
        for text in ["", "1", "1 2", "x 2 3", "1 2 3 nonsense error", "1 2 3 rejected"] {
            let error = Attempts::decode(EntryId::ZERO, text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}");
        }
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let doom = Doom::new(DeathReason::Exhausted, "ü".repeat(1_000));
        assert_eq!(doom.error.len(), ERROR_MAX);
    }
}
