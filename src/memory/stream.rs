//! Memory as a stream store.

use std::{pin::pin, time::Duration};

use async_trait::async_trait;

use super::{
    Memory,
    group::{self, Group},
    letters,
    state::{State, missing},
};
use crate::{
    Delivery, Entry, EntryId, Error, Result, StreamName,
    backend::{
        Ack, Acked, Append, Beat, BuryLetters, Claim, Claimed, DeadKeys, EnsureGroup, Fate, Heartbeat,
        Inspect, Leave, Left, PendingEntry, Read, ReadGroup, ReadPending, Redrive, Redriven, Removal,
        StreamBackend, StreamCapabilities, StreamState, Trim,
    },
};

#[async_trait]
impl StreamBackend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> StreamCapabilities {
        StreamCapabilities::none().with(false, true, true)
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        at_least_one("entries", request.entries.len())?;
        let now = self.clock().now().as_millis();
        let mut state = self.state()?;
        let log = state.create(&request.stream);
        let ids: Vec<_> = request.entries.iter().map(|new| log.append(new, now)).collect();
        if log.entries_added() == 0 && log.groups.is_empty() {
            // Nothing was appended to a stream that was not there.
            state.remove_stream(&request.stream);
        }
        state.notify(&request.stream);
        Ok(ids)
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        Ok(self.state()?.log_mut(&request.stream).map_or(0, |log| log.trim(request)))
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        let now = self.clock().elapsed();
        Ok(self.state()?.log(&request.stream).map(|log| log.state(request, now)))
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        at_least_one("limit", request.limit)?;
        self.wait(&request.stream, request.block, |state| {
            let log = state.log(&request.stream);
            Ok(log.map_or_else(Vec::new, |log| log.after(request.after, request.limit)))
        })
        .await
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        let mut state = self.state()?;
        let log = state.create(&request.subscription.stream);
        let created = match log.groups.get_mut(&request.subscription.group) {
            Some(group) => {
                group.last_delivered = group.last_delivered.max(request.at);
                false
            }
            None => {
                log.groups.insert(request.subscription.group.clone(), Group::new(request.at));
                true
            }
        };
        state.notify(&request.subscription.stream);
        Ok(created)
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        at_least_one("limit", request.limit)?;
        let mut life = None;
        self.wait(&request.subscription.stream, request.block, |state| {
            let now = self.clock().elapsed();
            let group = state.group_mut(&request.subscription)?;
            // The group that the reader waited on went, and another one took its name.
            if *life.get_or_insert(group.life) != group.life {
                return Err(missing(&request.subscription));
            }
            Ok(deliver(state, request, now))
        })
        .await
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        at_least_one("limit", request.limit)?;
        let now = self.clock().elapsed();
        let mut state = self.state()?;
        let group = state.group_mut(&request.subscription)?;
        let Some(from) = request.after.next() else { return Ok(Vec::new()) };
        let ids: Vec<_> = group
            .pending
            .range(from..)
            .filter(|(_, pending)| pending.owner == request.consumer)
            .map(|(&id, _)| id)
            .take(request.limit)
            .collect();
        let log = state.log_mut(&request.subscription.stream);
        let log = log.ok_or_else(|| missing(&request.subscription))?;
        let mut entries = Vec::with_capacity(ids.len());
        for id in ids {
            let fields = log.fields(id).cloned();
            let group = log.groups.get_mut(&request.subscription.group);
            let Some(pending) = group.and_then(|group| group.pending.get_mut(&id)) else { continue };
            // As on a server: an entry that is gone is told, not delivered.
            if fields.is_some() {
                pending.deliveries += 1;
                pending.at = now;
            }
            entries.push(PendingEntry::new(id, pending.deliveries, fields));
        }
        Ok(entries)
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        at_least_one("limit", request.limit)?;
        let now = self.clock().elapsed();
        let mut state = self.state()?;
        let (ids, next) = state.group_mut(&request.subscription)?.claim(request, now);
        let Some(log) = state.log(&request.subscription.stream) else {
            return Err(missing(&request.subscription));
        };
        let group = log.groups.get(&request.subscription.group);
        let deliveries = |id| group.and_then(|g| g.pending.get(&id)).map_or(1, |pending| pending.deliveries);
        let entries =
            ids.into_iter().map(|id| PendingEntry::new(id, deliveries(id), log.fields(id).cloned()));
        Ok(Claimed::new(entries.collect(), next))
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        let now = self.clock().elapsed();
        self.state()?.group_mut(&request.subscription)?.heartbeat(request, now)
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        let mut state = self.state()?;
        let log = state.log_mut(&request.subscription.stream);
        Ok(log.map_or_else(
            || Acked::new(0, None),
            |log| group::ack(log, &request.subscription.group, &request.ids, request.count),
        ))
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        let mut state = self.state()?;
        Ok(state.group_mut(&request.subscription).map_or(Left::new(0), |group| group.leave(request)))
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        letters::apart(&request.subscription, &request.into)?;
        let now = self.clock().now().as_millis();
        self.state()?.bury(request, now)
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        Ok(self.state()?.dead_keys(&request.subscription, &request.from))
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        letters::apart(&request.subscription, &request.from)?;
        let now = self.clock().now().as_millis();
        self.state()?.redrive(request, now)
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        let mut state = self.state()?;
        Ok(match request {
            Removal::Entries(stream, ids) => match state.log_mut(stream) {
                Some(log) => ids.iter().filter(|&&id| log.delete(id)).count() as u64,
                None => 0,
            },
            Removal::Group(subscription) => {
                u64::from(state.remove_group(&subscription.stream, &subscription.group))
            }
            Removal::Stream(stream) => u64::from(state.remove_stream(stream)),
        })
    }

    async fn close(&self) {
        self.shut();
    }
}

impl Memory {
    /// Makes an entry pending for another consumer, behind the back of the one that holds it.
    #[cfg(test)]
    pub(crate) fn steal(&self, subscription: &crate::Subscription, id: EntryId, thief: &crate::ConsumerName) {
        let mut state = self.state().unwrap();
        let pending = state.group_mut(subscription).unwrap().pending.get_mut(&id);
        pending.expect("it is pending").owner = thief.clone();
    }

    /// Tries until there is something, the time is over or the connection is closed.
    ///
    /// What an attempt took is returned without another await, so a dropped future has taken nothing.
    async fn wait<T>(
        &self,
        stream: &StreamName,
        block: Option<Duration>,
        mut attempt: impl FnMut(&mut State) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let Some(block) = block else { return attempt(&mut *self.state()?) };
        let deadline = self.clock().elapsed().saturating_add(block);
        let changed = self.state()?.changed(stream);
        loop {
            // Listen first and look then: an append between the two would be missed otherwise.
            let mut notified = pin!(changed.notified());
            notified.as_mut().enable();
            let found = attempt(&mut *self.state()?)?;
            if !found.is_empty() {
                return Ok(found);
            }
            tokio::select! {
                biased;
                closed = self.until_closed() => return Err(closed),
                () = notified => {}
                () = self.clock().sleep_until(deadline) => return Ok(found),
            }
        }
    }
}

/// Delivers new entries of a group that is there.
fn deliver(state: &mut State, request: &ReadGroup, now: Duration) -> Vec<Delivery> {
    let Some(log) = state.log_mut(&request.subscription.stream) else { return Vec::new() };
    let Some(after) = log.groups.get(&request.subscription.group).map(|group| group.last_delivered) else {
        return Vec::new();
    };
    let entries = log.after(after, request.limit);
    let Some(group) = log.groups.get_mut(&request.subscription.group) else { return Vec::new() };
    for entry in &entries {
        group.deliver(entry.id, &request.consumer, now);
    }
    entries.into_iter().map(|entry| Delivery::new(entry, 1)).collect()
}

fn at_least_one(name: &'static str, count: usize) -> Result<()> {
    if count == 0 { Err(Error::invalid("ask for at least one").with("name", name)) } else { Ok(()) }
}
