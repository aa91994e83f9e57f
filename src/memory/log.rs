//! One stream: its entries, and what survives them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use super::group::Group;
use crate::{
    Entry, EntryId, Error, Fields, GroupName, Incarnation, Result,
    backend::{GroupState, Inspect, NewEntry, StreamState, Trim, TrimLimit},
    clock,
};

/// How many ids of the past are kept to tell ordinals exactly. Older ones have no ordinal any more.
const HISTORY_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Log {
    entries: BTreeMap<EntryId, Fields>,
    /// The ids of all entries ever added, but for the oldest `forgotten` ones. They ascend.
    history: VecDeque<EntryId>,
    forgotten: u64,
    last_id: EntryId,
    incarnation: Incarnation,
    pub(super) groups: HashMap<GroupName, Group>,
}

impl Log {
    pub(super) fn new() -> Self {
        let incarnation = Incarnation::new(format!("{:016x}", clock::random()));
        Self {
            entries: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: 0,
            last_id: EntryId::ZERO,
            incarnation: incarnation.expect("hexadecimal digits are a valid name"),
            groups: HashMap::new(),
        }
    }

    pub(super) fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    pub(super) fn append(&mut self, new: &NewEntry, now_ms: u64) -> Result<EntryId> {
        let id = next_id(self.last_id, new, now_ms)?;
        self.last_id = id;
        self.entries.insert(id, new.fields.clone());
        self.history.push_back(id);
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
            self.forgotten += 1;
        }
        Ok(id)
    }

    pub(super) fn fields(&self, id: EntryId) -> Option<&Fields> {
        self.entries.get(&id)
    }

    pub(super) fn after(&self, id: EntryId, limit: usize) -> Vec<Entry> {
        let Some(from) = id.next() else { return Vec::new() };
        self.entries.range(from..).take(limit).map(|(&id, fields)| Entry::new(id, fields.clone())).collect()
    }

    pub(super) fn delete(&mut self, id: EntryId) -> bool {
        self.entries.remove(&id).is_some()
    }

    pub(super) fn trim(&mut self, request: &Trim) -> u64 {
        let before = self.entries.len();
        let keep_from = request.keep_from.unwrap_or(EntryId::MAX);
        let goes = |id: EntryId, len: usize| match request.limit {
            TrimLimit::Below(limit) => id < limit,
            TrimLimit::Len(limit) => len as u64 > limit,
        };
        while let Some((&first, _)) = self.entries.first_key_value()
            && goes(first, self.entries.len())
            // `EntryId::MAX` may be an entry: without `keep_from` nothing is protected.
            && (first < keep_from || request.keep_from.is_none())
        {
            self.entries.pop_first();
        }
        (before - self.entries.len()) as u64
    }

    pub(super) fn entries_added(&self) -> u64 {
        self.forgotten + self.history.len() as u64
    }

    /// How many entries were ever added up to this id.
    pub(super) fn ordinal(&self, id: EntryId) -> Option<u64> {
        let known = self.history.partition_point(|&added| added <= id);
        (known > 0 || self.forgotten == 0).then_some(self.forgotten + known as u64)
    }

    pub(super) fn state(&self, request: &Inspect, now: Duration) -> StreamState {
        let mut state = StreamState::new(self.last_id, self.entries.len() as u64);
        state.first_id = self.entries.first_key_value().map(|(&id, _)| id);
        state.entries_added = Some(self.entries_added());
        state.incarnation = Some(self.incarnation.clone());
        state.group = request.group.as_ref().and_then(|name| self.groups.get(name)).map(|group| {
            let mut state = GroupState::new(group.last_delivered);
            state.entries_read = self.ordinal(group.last_delivered);
            state.pending = group.pending.len() as u64;
            state.first_pending = group.pending.first_key_value().map(|(&id, _)| id);
            state.consumers_alive = request.count_alive.then(|| group.consumers_alive(now));
            state
        });
        state
    }
}

/// The id of a new entry, as Redis gives it: never below the clock, always above the last one.
fn next_id(last: EntryId, new: &NewEntry, now_ms: u64) -> Result<EntryId> {
    if new.fields.is_empty() {
        return Err(Error::invalid("an entry needs at least one field"));
    }
    match new.id {
        Some(id) if id > last => Ok(id),
        Some(id) => Err(Error::invalid(
            "the id of a new entry must be above the last one of the stream, and above 0-0",
        )
        .with("id", id)
        .with("last", last)),
        None => {
            let next = last.next().ok_or_else(|| {
                Error::invalid("the stream has used its last id: go on with a new stream").with("last", last)
            })?;
            Ok(next.max(EntryId::new(now_ms, 0)))
        }
    }
}
