//! All that the store holds. No waiting and no clock in here: the time comes in.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use super::{group::Group, letters::Graves, log::Log, record::Record};
use crate::{Error, ErrorKind, GroupName, Result, StreamName, Subscription};

#[derive(Debug, Default)]
pub(super) struct State {
    slots: HashMap<StreamName, Slot>,
    pub(super) checkpoints: BTreeMap<Subscription, Record>,
    /// By the stream of the letters.
    pub(super) graves: BTreeMap<(Subscription, StreamName), Graves>,
}

/// The place of a stream, which may be absent while readers wait for it.
#[derive(Debug, Default)]
struct Slot {
    log: Option<Log>,
    changed: Arc<Notify>,
}

impl State {
    /// What wakes the blocked readers of a stream.
    pub(super) fn changed(&mut self, stream: &StreamName) -> Arc<Notify> {
        Arc::clone(&self.slots.entry(stream.clone()).or_default().changed)
    }

    pub(super) fn notify(&self, stream: &StreamName) {
        if let Some(slot) = self.slots.get(stream) {
            slot.changed.notify_waiters();
        }
    }

    pub(super) fn log(&self, stream: &StreamName) -> Option<&Log> {
        self.slots.get(stream)?.log.as_ref()
    }

    pub(super) fn log_mut(&mut self, stream: &StreamName) -> Option<&mut Log> {
        self.slots.get_mut(stream)?.log.as_mut()
    }

    /// The stream, which is created if it is absent.
    pub(super) fn create(&mut self, stream: &StreamName) -> &mut Log {
        self.slots.entry(stream.clone()).or_default().log.get_or_insert_with(Log::new)
    }

    pub(super) fn remove_stream(&mut self, stream: &StreamName) -> bool {
        let Some(slot) = self.slots.get_mut(stream) else { return false };
        let there = slot.log.take().is_some();
        slot.changed.notify_waiters();
        // Nobody waits: the place can go as well.
        if Arc::strong_count(&slot.changed) == 1 {
            self.slots.remove(stream);
        }
        there
    }

    /// The stream and the name of the group on it, which is there.
    pub(super) fn group_mut(&mut self, subscription: &Subscription) -> Result<&mut Group> {
        self.log_mut(&subscription.stream)
            .and_then(|log| log.groups.get_mut(&subscription.group))
            .ok_or_else(|| missing(subscription))
    }

    pub(super) fn remove_group(&mut self, stream: &StreamName, group: &GroupName) -> bool {
        let there = self.log_mut(stream).is_some_and(|log| log.groups.remove(group).is_some());
        if there {
            self.notify(stream);
        }
        there
    }
}

pub(super) fn missing(subscription: &Subscription) -> Error {
    Error::new(ErrorKind::Missing, "there is no such group: create it at the checkpoint")
        .with("stream", &subscription.stream)
        .with("group", &subscription.group)
}
