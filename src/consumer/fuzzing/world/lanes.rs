//! What becomes of what a lane was given.

use std::time::Duration;

use super::World;
use crate::{
    DeathReason, Delivery, Doom, EntryId,
    consumer::{
        fuzzing::shape::Kind,
        handler::Verdict,
        machine::{Event, Failure, Finished},
    },
};

impl World {
    /// The nth lane handles its next delivery, or all of them.
    pub(in crate::consumer::fuzzing) fn lane_succeeds(&mut self, nth: usize) {
        if self.lanes.is_empty() {
            return;
        }
        let nth = nth % self.lanes.len();
        self.calls(nth);
        let finished = match self.shape.kind {
            Kind::PerEntry => {
                let delivery = self.lanes[nth].chunk.pop_front().expect("a lane that is empty is gone");
                self.handles(delivery.id());
                vec![Finished::done([&delivery])]
            }
            Kind::PerBatch => {
                let chunk = std::mem::take(&mut self.lanes[nth].chunk);
                chunk.iter().for_each(|delivery| self.handles(delivery.id()));
                vec![Finished::done(&chunk)]
            }
            Kind::Transaction { fused } => self.commits(nth, fused),
        };
        self.reports(nth, finished);
    }

    /// The nth lane fails with its next delivery, or with all of them.
    pub(in crate::consumer::fuzzing) fn lane_fails(&mut self, nth: usize, reject: bool) {
        if self.lanes.is_empty() {
            return;
        }
        let nth = nth % self.lanes.len();
        self.calls(nth);
        let mut deliveries: Vec<_> = self.lanes[nth].chunk.drain(..).collect();
        let rest = match self.shape.kind {
            Kind::PerEntry => deliveries.split_off(1),
            Kind::PerBatch | Kind::Transaction { .. } => Vec::new(),
        };
        let failure = Failure {
            error: (),
            verdict: if reject { Verdict::Reject } else { Verdict::Retry(None) },
            index: None,
            rolled_back: self.shape.transactional(),
            doom: Doom::new(DeathReason::Exhausted, ""),
        };
        let slot = self.lanes[nth].slot;
        self.reports(nth, vec![Finished::Failed { slot, deliveries, failure, rest }]);
    }

    /// The store cannot answer the nth lane; `committed`: it is done all the same.
    pub(in crate::consumer::fuzzing) fn lane_defers(&mut self, nth: usize, committed: bool) {
        let Kind::Transaction { fused } = self.shape.kind else { return };
        if self.lanes.is_empty() {
            return;
        }
        if committed && !self.shape.shared {
            // Only a new epoch tells an owner what took place.
            let nth = nth % self.lanes.len();
            drop(self.commits(nth, fused));
            self.crash();
            return;
        }
        let nth = nth % self.lanes.len();
        self.calls(nth);
        let mut deliveries: Vec<_> = self.lanes[nth].chunk.iter().cloned().collect();
        deliveries.iter_mut().for_each(|delivery| delivery.begun = true);
        if committed {
            drop(self.commits(nth, fused));
        }
        self.lanes[nth].chunk.clear();
        let again = self.now + Duration::from_millis(5);
        self.reports(nth, vec![Finished::Deferred { deliveries, again }]);
    }

    /// The nth lane gives back what it has not started.
    pub(in crate::consumer::fuzzing) fn lane_gives_back(&mut self, nth: usize) {
        if self.lanes.is_empty() || !self.halted {
            return;
        }
        let nth = nth % self.lanes.len();
        if self.lanes[nth].started && self.shape.kind != Kind::PerEntry {
            return;
        }
        let lane = self.lanes.swap_remove(nth);
        self.feed(Event::Finished(vec![Finished::Idle { slot: lane.slot, rest: lane.chunk.into() }]));
    }

    fn calls(&mut self, nth: usize) {
        let lane = &mut self.lanes[nth];
        lane.started = true;
        let count = if self.shape.kind == Kind::PerEntry { 1 } else { lane.chunk.len() };
        let called: Vec<_> =
            lane.chunk.iter().take(count).filter(|d| d.attempt == 1 && !d.begun).map(Delivery::id).collect();
        for id in called {
            // An attempt that was rolled back does not count, and is no first call either.
            if !self.called.contains(&id) {
                self.called.push(id);
                self.check_order();
            }
        }
    }

    fn handles(&mut self, id: EntryId) {
        let first = self.succeeded.insert(id);
        assert!(first || self.group_lost, "G5: {id} was handled twice by one process: {self:?}");
        *self.handled.entry(id).or_default() += 1;
    }

    /// Commits what the lane holds, but for what was settled before.
    fn commits(&mut self, nth: usize, fused: bool) -> Vec<Finished<()>> {
        let chunk = std::mem::take(&mut self.lanes[nth].chunk);
        let (before, new): (Vec<_>, Vec<_>) =
            chunk.into_iter().partition(|delivery| self.handled.contains_key(&delivery.id()));
        assert!(before.is_empty() || self.shape.shared, "G9: an owner holds what is settled: {self:?}");
        let mut finished: Vec<_> =
            before.iter().map(|d| Finished::Before(d.id(), d.fields().size() as u64)).collect();
        if new.is_empty() {
            return finished;
        }
        for delivery in &new {
            *self.handled.entry(delivery.id()).or_default() += 1;
            self.succeeded.insert(delivery.id());
        }
        let size = |delivery: &Delivery| delivery.fields().size() as u64;
        if !fused {
            finished.push(Finished::done(&new));
            return finished;
        }
        let position = match self.lanes[nth].position.take() {
            Some(position) => Some(position),
            None => {
                let ids: Vec<_> = new.iter().map(Delivery::id).collect();
                self.ack(&ids)
            }
        };
        let advanced = position.is_some_and(|position| self.advance(&position));
        if advanced || !self.shape.shared {
            finished.extend(new.iter().map(|d| Finished::Committed(d.id(), size(d))));
            finished.push(Finished::Advanced(self.stored.watermark));
        } else {
            finished.push(Finished::done(&new));
        }
        finished
    }

    fn reports(&mut self, nth: usize, mut finished: Vec<Finished<()>>) {
        if self.lanes[nth].chunk.is_empty() {
            let lane = self.lanes.swap_remove(nth);
            finished.push(Finished::Idle { slot: lane.slot, rest: Vec::new() });
        }
        self.feed(Event::Finished(finished));
    }
}
