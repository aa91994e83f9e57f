//! The group: who holds what, and who lives: G1, G7, G13.

use std::time::Duration;

use highwater::{
    ConsumerName, Delivery, EntryId,
    backend::{Claimed, Heartbeat, Leave, Token},
};

use super::{State, is_wanted};

/// A consumer's sign of life.
#[derive(Debug)]
pub struct Beat {
    pub token: Token,
    pub until: Duration,
}

impl State {
    pub fn delivered(&mut self, who: usize, to: &ConsumerName, deliveries: &[Delivery]) {
        if deliveries.is_empty() {
            return;
        }
        let ids: Vec<_> = deliveries.iter().map(Delivery::id).collect();
        self.note(format_args!("c{who} is given {}", List(&ids)));
        self.delivered = ids.iter().copied().fold(self.delivered, EntryId::max);
        self.pending.extend(ids.into_iter().map(|id| (id, to.clone())));
    }

    pub fn claimed(&mut self, by: &ConsumerName, claimed: &Claimed) {
        let now = self.now();
        for entry in &claimed.entries {
            let id = entry.id;
            let Some(owner) = self.pending.insert(id, by.clone()) else { continue };
            if owner == *by {
                self.violate(format!("G13: {by} has claimed {id}, which it holds itself"));
            } else if self.beats.get(&owner).is_some_and(|beat| beat.until > now) {
                self.violate(format!("G13: {by} has claimed {id} from {owner}, which lives"));
            }
            self.note(format_args!("{by} claims {id} from {owner}"));
        }
    }

    pub fn beat(&mut self, request: &Heartbeat) {
        let until = self.now() + request.ttl;
        self.beats.insert(request.consumer.clone(), Beat { token: request.token, until });
    }

    pub fn left(&mut self, request: &Leave) {
        if let Some(beat) = self.beats.get_mut(&request.consumer).filter(|beat| beat.token == request.token) {
            beat.until = Duration::ZERO;
        }
    }

    /// These were acked, by a consumer that knew of the resets up to this era.
    pub fn acked(&mut self, who: usize, era: u32, ids: &[EntryId]) {
        for id in ids {
            if self.pending.remove(id).is_none() || self.stale {
                continue;
            }
            let Some(&at) = self.numbers.get(id).filter(|&&at| is_wanted(&self.facts[at])) else { continue };
            if era < self.era && self.facts[at].ever {
                // It was handled before the operator wanted it again, and its ack was under way.
                self.facts[at].excused = true;
                self.note(format_args!("the ack of {id} is of the time before the reset"));
            } else {
                self.violate(format!("G1: consumer {who} has acked {id}, which nobody has handled"));
            }
        }
        if !ids.is_empty() {
            self.note(format_args!("c{who} acks {}", List(ids)));
        }
    }

    pub fn group_lost(&mut self) {
        self.pending.clear();
        self.delivered = EntryId::ZERO;
        // The server begins to count deliveries again.
        self.facts.iter_mut().for_each(|fact| fact.unmarked = 0);
        for witness in &mut self.witnesses {
            witness.untold.extend(witness.running.iter().map(|(_, _, id)| *id));
        }
        self.beats.clear();
        self.disrupted();
        self.note(format_args!("the group is lost"));
    }
}

/// Ids in a line.
struct List<'a>(&'a [EntryId]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|id| write!(f, "{id} "))
    }
}
