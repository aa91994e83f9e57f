//! A small reference model of a subscription: which entries there are, and which are settled.
//!
//! Plain and slow, so that property tests can hold the clever code against it.
//!
//! ```
//! use highwater::{EntryId, conformance::model::Model};
//!
//! let id = |ms| EntryId::new(ms, 0);
//! let mut model = Model::new([id(1), id(2), id(3)]);
//! model.settle(id(3));
//! model.settle(id(1));
//! assert_eq!(model.watermark(), id(1));
//! assert_eq!(model.unsettled().collect::<Vec<_>>(), [id(2)]);
//! ```

use std::collections::BTreeMap;

use crate::{EntryId, Position};

/// Which entries a stream was given, and which of them are settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    settled: BTreeMap<EntryId, bool>,
}

impl Model {
    /// A stream of these entries, none of them settled.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = EntryId>) -> Self {
        Self { settled: entries.into_iter().map(|id| (id, false)).collect() }
    }

    /// Adds an entry.
    pub fn append(&mut self, id: EntryId) {
        self.settled.entry(id).or_default();
    }

    /// Settles an entry. Does nothing if there is no such entry.
    pub fn settle(&mut self, id: EntryId) {
        if let Some(settled) = self.settled.get_mut(&id) {
            *settled = true;
        }
    }

    /// The greatest entry such that it and all before it are settled; `0-0` if the first one is not.
    #[must_use]
    pub fn watermark(&self) -> EntryId {
        self.settled.iter().take_while(|(_, settled)| **settled).last().map_or(EntryId::ZERO, |(&id, _)| id)
    }

    /// What must be delivered after a restart: no more, no less.
    pub fn unsettled(&self) -> impl Iterator<Item = EntryId> {
        self.settled.iter().filter(|(_, settled)| !**settled).map(|(&id, _)| id)
    }

    /// Whether a position says nothing that is not so: G1 and G2. It may say less.
    #[must_use]
    pub fn allows(&self, position: &Position) -> bool {
        self.unsettled().all(|id| !position.settles(id))
    }

    /// Whether a position says all that is so: G5.
    #[must_use]
    pub fn is_told_by(&self, position: &Position) -> bool {
        self.settled.iter().all(|(&id, &settled)| settled == position.settles(id))
    }
}
