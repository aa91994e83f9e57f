//! How a subscription stands, seen from outside.

use crate::{
    Checkpoint, Position,
    backend::{GroupState, StreamState},
    consumer::resume,
    integrity::Finding,
};

/// How a subscription stands, seen from outside: from [`Operator::status`](super::Operator::status).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Standing {
    /// Its checkpoint; `None` if it never had one.
    pub checkpoint: Option<Checkpoint>,
    /// The stream, with the group of a shared subscription in it; `None` if there is none.
    pub stream: Option<StreamState>,
    /// Entries not delivered yet, where the server can tell. Of an exclusive subscription, only its owner knows.
    pub lag: Option<u64>,
    /// Entries not settled yet, where the server can tell.
    pub backlog: Option<u64>,
    /// What is wrong between the checkpoint and the stream: entries that left it unsettled, or that it is another stream.
    pub finding: Option<Finding>,
}

impl Standing {
    pub(super) fn new(checkpoint: Option<Checkpoint>, stream: Option<StreamState>) -> Self {
        let group = stream.as_ref().and_then(|stream| stream.group.as_ref());
        let stored = checkpoint.as_ref().map(|checkpoint| checkpoint.position.clone());
        let (position, finding) = match stored {
            Some(stored) => resume::with_group(stored, group, stream.as_ref()),
            None => (Position::default(), None),
        };
        let added = stream.as_ref().and_then(|stream| stream.entries_added);
        let (lag, backlog) = match (group, added, &finding) {
            // The numbers of one stream say nothing about another one.
            (_, _, Some(Finding::Reset(_))) | (_, None, _) => (None, None),
            (Some(group), Some(added), _) => {
                let lag = group.entries_read.and_then(|read| added.checked_sub(read));
                (lag, lag.map(|lag| lag + group.pending))
            }
            (None, Some(added), _) if position.ahead.is_empty() => {
                (None, position.ordinal.and_then(|ordinal| added.checked_sub(ordinal)))
            }
            (None, Some(_), _) => (None, None),
        };
        Self { checkpoint, stream, lag, backlog, finding }
    }

    /// Whether nobody is to consume it. The reason is in the [checkpoint](Checkpoint::reason).
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.paused)
    }

    /// The group of a shared subscription, if it is there.
    #[must_use]
    pub fn group(&self) -> Option<&GroupState> {
        self.stream.as_ref()?.group.as_ref()
    }

    /// How many consumers of a shared subscription are alive. The owner of an exclusive one does not count.
    #[must_use]
    pub fn consumers_alive(&self) -> u64 {
        self.group().and_then(|group| group.consumers_alive).unwrap_or_default()
    }

    /// How many entries of a shared subscription are pending.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.group().map_or(0, |group| group.pending)
    }
}
