//! What follows when a handler fails.

use std::time::Duration;

use super::{Action, Failure, Machine, Slot};
use crate::{
    DeathReason, Delivery, Doom,
    clock::Timestamp,
    consumer::{OnExhausted, burials::Burial, handler::Verdict},
    delivery::Care,
};

impl Machine {
    pub(super) fn failed<E>(
        &mut self,
        slot: Slot,
        mut deliveries: Vec<Delivery>,
        failure: Failure<E>,
        rest: Vec<Delivery>,
        now: Duration,
        actions: &mut Vec<Action<E>>,
    ) {
        // The process has died of none of them.
        deliveries.iter().for_each(|delivery| self.book.survived(delivery.id()));
        let index = failure.index.filter(|&index| index < deliveries.len());
        let behind = index.map_or_else(Vec::new, |index| deliveries.split_off(index + 1));
        let culprit = index.unwrap_or_default();
        let mut before: Vec<_> = deliveries.drain(..culprit).collect();
        if !failure.rolled_back {
            for delivery in before.drain(..) {
                self.done(&[delivery.id()], delivery.fields().size() as u64, now);
            }
        }
        let (blamed, others) = (deliveries, (before, behind, rest));
        // While it stops, a delivery that nobody takes any more is no failure of the entry, which comes again.
        if failure.verdict == Verdict::Stop || self.stopping || self.lapsed {
            let (id, attempts) = (blamed[0].id(), blamed[0].attempt);
            self.give_back(blamed, others);
            if failure.verdict == Verdict::Stop && !self.stopping {
                actions.push(Action::Exhausted { id, attempts, error: failure.error });
                self.stop();
            }
            return;
        }
        let exhausted = self.count_failure(&blamed, failure.verdict, now);
        match (exhausted, blamed.len()) {
            (false, _) => {
                let wait = match failure.verdict {
                    Verdict::Retry(Some(wait)) => wait,
                    _ => self.limits.retry.delay(blamed[0].attempt),
                };
                self.counts.retried += blamed.len() as u64;
                self.retry(blamed, others, now + wait);
            }
            (true, 1) => self.give_up(slot, blamed, failure, others, now, actions),
            // Which one of them is at fault shows when each comes alone.
            (true, _) => {
                self.counts.retried += blamed.len() as u64;
                let alone = blamed.into_iter().map(|delivery| Delivery { care: Care::Isolated, ..delivery });
                self.retry(alone.collect(), others, now);
            }
        }
    }

    /// Counts a failure of each, and says whether that was the last that they may have.
    fn count_failure(&mut self, blamed: &[Delivery], verdict: Verdict, now: Duration) -> bool {
        let at = self.at(now);
        let mut exhausted = verdict == Verdict::Reject;
        for delivery in blamed {
            let attempts = self.book.failed(delivery.id(), delivery.attempt, at);
            let elapsed = attempts.first_at.map(|first| at.since(first)).unwrap_or_default();
            exhausted |= delivery.attempt >= self.limits.attempts_max
                || self.limits.retry_elapsed_max.is_some_and(|max| elapsed >= max);
        }
        exhausted
    }

    fn retry(&mut self, blamed: Vec<Delivery>, (mut before, behind, rest): Others, at: Duration) {
        before.extend(blamed.into_iter().map(|mut delivery| {
            // Isolated, it has at least one attempt left: its last.
            delivery.attempt = delivery.attempt.saturating_add(1).min(self.limits.attempts_max);
            if delivery.care.is_suspect() {
                // The process survived it.
                delivery.care = Care::None;
            }
            delivery
        }));
        before.extend(behind);
        self.queue.retry(before, rest, at);
    }

    fn give_back(&mut self, blamed: Vec<Delivery>, (before, behind, rest): Others) {
        self.return_unstarted(before.into_iter().chain(blamed).chain(behind).chain(rest).collect());
    }

    /// An entry may not be tried again.
    fn give_up<E>(
        &mut self,
        slot: Slot,
        mut blamed: Vec<Delivery>,
        failure: Failure<E>,
        (before, behind, rest): Others,
        now: Duration,
        actions: &mut Vec<Action<E>>,
    ) {
        if self.limits.on_exhausted == OnExhausted::Stop {
            let (id, attempts) = (blamed[0].id(), blamed[0].attempt);
            self.give_back(blamed, (before, behind, rest));
            actions.push(Action::Exhausted { id, attempts, error: failure.error });
            self.stop();
            return;
        }
        let others = before.into_iter().chain(behind).chain(rest).collect();
        self.return_unstarted(others);
        if let Some(delivery) = blamed.pop() {
            if self.limits.on_exhausted == OnExhausted::DeadLetter {
                self.queue.block(slot.key);
            }
            self.doom(slot.key, delivery, failure.doom, now, actions);
        }
    }

    /// Settles an entry that is given up, by the policy, or sends it to the dead letters; where it stood, nothing is started
    /// until it lies there.
    pub(super) fn doom<E>(
        &mut self,
        key: Option<u64>,
        delivery: Delivery,
        doom: Doom,
        now: Duration,
        actions: &mut Vec<Action<E>>,
    ) {
        let id = delivery.id();
        if self.limits.on_exhausted == OnExhausted::Skip {
            self.ledger.settle(id);
            self.book.settled(id);
            self.counts.given_up += 1;
            self.handled(1, delivery.fields().size() as u64);
            self.policy.settled(0, now);
            actions.push(Action::Skipped { id, doom });
            return;
        }
        // A parked one may be handled after all.
        if self.limits.notes_doom && doom.reason != DeathReason::Parked {
            self.book.doomed(id, &doom);
        }
        let attempts = self.book.of(id);
        self.burials.push(Burial { delivery, key, doom, attempts });
    }

    pub(super) fn at(&self, now: Duration) -> Timestamp {
        self.began.plus(now)
    }
}

/// Those of a batch before and behind the ones that failed, and what its lane did not start.
type Others = (Vec<Delivery>, Vec<Delivery>, Vec<Delivery>);
