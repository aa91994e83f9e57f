//! How far what transactions have settled was dropped.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use highwater::{EntryId, Epoch, Subscription};

/// What one value remembers, so that it does not begin at the beginning each time: there is nothing, but an index leads through
/// all that was dropped until the server has cleaned up.
#[derive(Debug, Default)]
pub(crate) struct Pruning {
    /// Whether this value has settled entries in transactions, each by itself.
    settles: AtomicBool,
    /// Up to which watermark this value has dropped all, and in which epoch: only in another one does a watermark go back.
    done: Mutex<HashMap<Subscription, (Epoch, EntryId)>>,
}

impl Pruning {
    /// Entries were settled each by itself, or not.
    pub(crate) fn settled(&self, each: bool) {
        self.settles.fetch_or(each, Ordering::Relaxed);
    }

    /// Above which id there may be something to drop; `None` if there is nothing.
    pub(crate) fn from(&self, of: &Subscription, epoch: Epoch) -> Option<EntryId> {
        if !self.settles.load(Ordering::Relaxed) {
            return None;
        }
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        Some(done.get(of).filter(|done| done.0 == epoch).map_or(EntryId::ZERO, |done| done.1))
    }

    /// All up to this watermark was dropped; `None` if that is not known.
    pub(crate) fn done(&self, of: &Subscription, epoch: Epoch, watermark: Option<EntryId>) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match watermark {
            Some(watermark) => done.insert(of.clone(), (epoch, watermark)),
            None => done.remove(of),
        };
    }
}
