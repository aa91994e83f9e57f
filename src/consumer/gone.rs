//! Pending entries that left the stream.

use super::lane::Lanes;
use crate::{EntryId, Epoch, Result};

/// Pending entries that left the stream.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    pub(crate) ids: Vec<EntryId>,
    /// Those of them that a transaction has settled, and that are pending all the same: its ack was lost, or the group was.
    pub(crate) settled: Vec<EntryId>,
}

impl Gone {
    /// Asks the store which of them are settled: those are not missing.
    pub(crate) async fn new(lanes: &dyn Lanes, epoch: Epoch, ids: Vec<EntryId>) -> Result<Self> {
        let settled = if ids.is_empty() { Vec::new() } else { lanes.settled(epoch, ids.clone()).await? };
        Ok(Self { ids, settled })
    }
}
