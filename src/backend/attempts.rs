//! Requests about attempts that are remembered. New options become new fields.

use crate::{Attempts, EntryId, Epoch, Subscription};

/// Ask what is remembered of attempts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadAttempts {
    /// The subscription.
    pub subscription: Subscription,
    /// At which entries; `None`: at all of which something is remembered.
    pub ids: Option<Vec<EntryId>>,
}

impl LoadAttempts {
    /// All of them.
    #[must_use]
    pub fn all(subscription: Subscription) -> Self {
        Self { subscription, ids: None }
    }

    /// Those at these entries.
    #[must_use]
    pub fn of(subscription: Subscription, ids: Vec<EntryId>) -> Self {
        Self { subscription, ids: Some(ids) }
    }
}

/// Remember attempts, or forget them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NoteAttempts {
    /// The subscription.
    pub subscription: Subscription,
    /// The epoch that the caller holds.
    pub epoch: Epoch,
    /// Remember these, in place of what is remembered of the same entries.
    pub set: Vec<Attempts>,
    /// Forget what is remembered of these entries.
    pub clear: Vec<EntryId>,
}

impl NoteAttempts {
    /// Remembers these and forgets those.
    #[must_use]
    pub fn new(subscription: Subscription, epoch: Epoch, set: Vec<Attempts>, clear: Vec<EntryId>) -> Self {
        Self { subscription, epoch, set, clear }
    }
}
