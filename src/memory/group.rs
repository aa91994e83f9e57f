//! One group: its position, its pending entries and its consumers' heartbeats.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::log::Log;
use crate::{
    ConsumerName, EntryId, Error, ErrorKind, Position, Result, SettledAhead,
    backend::{Acked, Beat, Claim, Heartbeat, Leave, Left, Token},
    clock,
};

/// How many pending entries a position lists as holes. What is settled beyond them is left out, which is safe.
const HOLES_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Group {
    /// Tells this group from an earlier one of the same name, for readers that were blocked meanwhile.
    pub(super) life: u64,
    pub(super) last_delivered: EntryId,
    pub(super) pending: BTreeMap<EntryId, Pending>,
    /// Of all consumers that ever kept one and are not removed. One that is absent here is judged by idle time.
    heartbeats: HashMap<ConsumerName, Sign>,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) owner: ConsumerName,
    pub(super) deliveries: u64,
    /// When it was last delivered.
    pub(super) at: Duration,
}

#[derive(Debug)]
struct Sign {
    token: Token,
    until: Duration,
}

impl Group {
    pub(super) fn new(at: EntryId) -> Self {
        Self {
            life: clock::random(),
            last_delivered: at,
            pending: BTreeMap::new(),
            heartbeats: HashMap::new(),
        }
    }

    pub(super) fn deliver(&mut self, id: EntryId, to: &ConsumerName, now: Duration) {
        self.last_delivered = self.last_delivered.max(id);
        self.pending.insert(id, Pending { owner: to.clone(), deliveries: 1, at: now });
    }

    pub(super) fn heartbeat(&mut self, request: &Heartbeat, now: Duration) -> Result<Beat> {
        let standing = self.heartbeats.get(&request.consumer).filter(|sign| now < sign.until);
        let beat = match standing {
            Some(sign) if sign.token != request.token => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "another live process uses this consumer name: use another name, or wait until it is gone",
                )
                .with("consumer", &request.consumer));
            }
            Some(_) => Beat::Unbroken,
            None => Beat::Fresh,
        };
        let sign = Sign { token: request.token, until: now.saturating_add(request.ttl) };
        self.heartbeats.insert(request.consumer.clone(), sign);
        Ok(beat)
    }

    pub(super) fn consumers_alive(&self, now: Duration) -> u64 {
        self.heartbeats.values().filter(|sign| now < sign.until).count() as u64
    }

    pub(super) fn leave(&mut self, request: &Leave) -> Left {
        let pending = self.pending.values().filter(|p| p.owner == request.consumer).count() as u64;
        let taken = self.heartbeats.get(&request.consumer).is_some_and(|sign| sign.token != request.token);
        if !taken && pending == 0 {
            self.heartbeats.remove(&request.consumer);
        } else if !taken {
            // A heartbeat that has ended, and not none: what is pending may then be claimed at once.
            let ended = Sign { token: request.token, until: Duration::ZERO };
            self.heartbeats.insert(request.consumer.clone(), ended);
        }
        Left::new(pending)
    }

    /// Moves entries of dead consumers to the caller. Returns their ids, and where to go on.
    pub(super) fn claim(&mut self, request: &Claim, now: Duration) -> (Vec<EntryId>, Option<EntryId>) {
        let mut claimed = Vec::new();
        let mut next = None;
        for (&id, pending) in self.pending.range_mut(request.from..) {
            if claimed.len() == request.limit {
                next = Some(id);
                break;
            }
            let idle = now.saturating_sub(pending.at);
            let dead = match self.heartbeats.get(&pending.owner) {
                Some(sign) => now >= sign.until,
                None => idle >= request.min_idle,
            };
            if dead && pending.owner != request.consumer {
                pending.owner = request.consumer.clone();
                pending.deliveries += 1;
                pending.at = now;
                claimed.push(id);
            }
        }
        self.bury(&request.consumer, now);
        (claimed, next)
    }

    /// Removes consumers that are dead and have nothing pending. Never one with pending entries: they would be lost.
    fn bury(&mut self, caller: &ConsumerName, now: Duration) {
        if self.heartbeats.values().all(|sign| now < sign.until) {
            return;
        }
        let owners: BTreeSet<_> = self.pending.values().map(|pending| &pending.owner).collect();
        self.heartbeats.retain(|name, sign| now < sign.until || name == caller || owners.contains(name));
    }
}

/// Acks entries of a group, and tells where it then stands. `count`: also the ordinal.
pub(super) fn ack(log: &mut Log, group: &crate::GroupName, ids: &[EntryId], count: bool) -> Acked {
    let Some(state) = log.groups.get_mut(group) else { return Acked::new(0, None) };
    let mut acked = 0;
    let mut greatest_acked = None;
    for &id in ids {
        if state.pending.remove(&id).is_some() {
            acked += 1;
            greatest_acked = greatest_acked.max(Some(id));
        }
    }
    let position = match state.pending.first_key_value() {
        Some((first, _)) => {
            let watermark = first.prev().unwrap_or(EntryId::ZERO);
            Position::at(watermark).with_ahead(ahead(state))
        }
        None if count || ids.is_empty() => Position::at(state.last_delivered),
        None => Position::at(greatest_acked.unwrap_or_else(|| {
            ids.iter().max().map_or(state.last_delivered, |&id| id.min(state.last_delivered))
        })),
    };
    let ordinal = count.then(|| log.ordinal(position.watermark)).flatten();
    let incarnation = Some(log.incarnation().clone());
    Acked::new(acked, Some(position.with_ordinal(ordinal).with_incarnation(incarnation)))
}

fn ahead(group: &Group) -> SettledAhead {
    let mut pending = group.pending.keys().copied();
    let holes: Vec<_> = pending.by_ref().take(HOLES_MAX).collect();
    // A hole that is not listed must not count as settled, so the set ends before it.
    let top = pending.next().and_then(EntryId::prev).unwrap_or(group.last_delivered);
    SettledAhead::new(top, holes)
}
