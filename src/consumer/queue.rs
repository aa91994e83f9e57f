//! In which order deliveries are started: strictly, freely, or in order per key.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::{Delivery, delivery::Care};

/// Says which key a delivery belongs to, as a hash.
pub(crate) type KeyFn = Arc<dyn Fn(&Delivery) -> u64 + Send + Sync>;

/// How many deliveries one lane is given at once.
const CHUNK_MAX: usize = 1_000;

/// How many suspects are started together. Should the process die of one, each of them comes alone.
const SUSPECTS_MAX: usize = 64;

#[derive(Clone)]
pub(crate) enum Order {
    /// One after the other, at most this many in one chunk. A failing delivery holds back all behind it.
    Strict { chunk_max: usize },
    /// This many at once. A failing delivery holds back nothing.
    Unordered { lanes: usize },
    /// This many at once, but one of a key. A failing delivery holds back its key.
    Keyed { lanes: usize, key: KeyFn },
}

impl Order {
    pub(crate) fn strict() -> Self {
        Self::Strict { chunk_max: CHUNK_MAX }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict { chunk_max } => write!(f, "Strict({chunk_max})"),
            Self::Unordered { lanes } => write!(f, "Unordered({lanes})"),
            Self::Keyed { lanes, .. } => write!(f, "Keyed({lanes})"),
        }
    }
}

/// A delivery that waits for its next attempt.
#[derive(Debug)]
struct Retry {
    at: Duration,
    /// Of two with the same time, the one that failed first.
    nth: u64,
    delivery: Delivery,
}

impl PartialEq for Retry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.nth) == (other.at, other.nth)
    }
}

impl Eq for Retry {}

impl PartialOrd for Retry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Retry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.nth).cmp(&(other.at, other.nth))
    }
}

/// Deliveries that are not started, and how many are.
#[derive(Debug)]
pub(crate) struct Queue {
    order: Order,
    ready: VecDeque<Delivery>,
    /// Chunks that run.
    running: usize,
    /// Strict: nothing starts before this time, and then so many as one chunk.
    hold: Option<(Duration, usize)>,
    /// Strict: nothing starts, since what comes first is being dead-lettered.
    blocked: bool,
    retries: BinaryHeap<Reverse<Retry>>,
    retried: u64,
    /// Keyed: keys whose delivery has failed while its lane is not yet free.
    failed: HashSet<u64>,
    /// Keyed: what waits behind the delivery of its key that runs or waits for its retry.
    busy: HashMap<u64, VecDeque<Delivery>>,
    /// Keyed: the next of keys that have become free.
    runnable: VecDeque<(u64, Delivery)>,
    /// Suspects that wait for another one to end. Their keys are busy.
    suspects: VecDeque<(Option<u64>, Delivery)>,
}

impl Queue {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            ready: VecDeque::new(),
            running: 0,
            hold: None,
            blocked: false,
            retries: BinaryHeap::new(),
            retried: 0,
            failed: HashSet::new(),
            busy: HashMap::new(),
            runnable: VecDeque::new(),
            suspects: VecDeque::new(),
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn push(&mut self, delivery: Delivery) {
        self.ready.push_back(delivery);
    }

    /// Puts deliveries that were not started before all others. Only a strict order gives out more than it starts.
    pub(crate) fn unshift(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries.into_iter().rev() {
            self.ready.push_front(delivery);
        }
    }

    /// Takes deliveries that failed together, and what was to come behind them.
    pub(crate) fn retry(&mut self, failed: Vec<Delivery>, rest: Vec<Delivery>, at: Duration) {
        if let Order::Strict { .. } = self.order {
            self.hold = Some((at, failed.len()));
            self.unshift(rest);
            self.unshift(failed);
            return;
        }
        debug_assert!(rest.is_empty(), "one delivery a chunk");
        for delivery in failed {
            if let Order::Keyed { key, .. } = &self.order {
                self.failed.insert(key(&delivery));
            }
            self.retried += 1;
            self.retries.push(Reverse(Retry { at, nth: self.retried, delivery }));
        }
    }

    /// A lane is free. Comes after what became of its deliveries.
    pub(crate) fn idle(&mut self, key: Option<u64>) {
        self.running -= 1;
        let Some(key) = key else { return };
        if self.failed.remove(&key) {
            // The key stays busy until its retry has succeeded.
            return;
        }
        self.release(key);
    }

    /// A key is not busy any more, or goes on with what waits behind.
    fn release(&mut self, key: u64) {
        match self.busy.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.runnable.push_back((key, next)),
            None => drop(self.busy.remove(&key)),
        }
    }

    /// What to start now, if there is anything and a lane is free; no suspect unless `suspects`.
    pub(crate) fn next(&mut self, now: Duration, suspects: bool) -> Option<(Option<u64>, Vec<Delivery>)> {
        let started = match self.order.clone() {
            Order::Strict { chunk_max } => {
                self.next_strict(chunk_max, now, suspects).map(|chunk| (None, chunk))
            }
            Order::Unordered { lanes } if self.running < lanes => self.next_of(suspects, |queue| {
                queue.due(now).or_else(|| queue.ready.pop_front()).map(|delivery| (None, delivery))
            }),
            Order::Keyed { lanes, key } if self.running < lanes => self.next_of(suspects, |queue| {
                queue.next_keyed(&key, now).map(|(key, delivery)| (Some(key), delivery))
            }),
            Order::Unordered { .. } | Order::Keyed { .. } => None,
        };
        self.running += usize::from(started.is_some());
        started
    }

    /// One delivery; suspects come one at a time.
    fn next_of(
        &mut self,
        suspects: bool,
        mut next: impl FnMut(&mut Self) -> Option<(Option<u64>, Delivery)>,
    ) -> Option<(Option<u64>, Vec<Delivery>)> {
        if suspects && let Some((key, delivery)) = self.suspects.pop_front() {
            return Some((key, vec![delivery]));
        }
        while let Some((key, delivery)) = next(self) {
            if suspects || !delivery.care.is_suspect() {
                return Some((key, vec![delivery]));
            }
            self.suspects.push_back((key, delivery));
        }
        None
    }

    fn next_strict(&mut self, chunk_max: usize, now: Duration, suspects: bool) -> Option<Vec<Delivery>> {
        let first = self.ready.front()?.care;
        if self.running > 0 || self.blocked || (first.is_suspect() && !suspects) {
            return None;
        }
        let chunk = match self.hold {
            Some((at, _)) if now < at => return None,
            Some((_, len)) => len,
            None => chunk_max,
        };
        self.hold = None;
        let chunk = match first {
            care if care.is_alone() => 1,
            Care::Suspect => chunk.min(SUSPECTS_MAX),
            _ => chunk,
        };
        let alike = self.ready.iter().take(chunk).take_while(|delivery| delivery.care == first).count();
        Some(self.ready.drain(..alike).collect())
    }

    /// What was handed out as the next is not started: it is being dead-lettered. Its key, or the stream, waits.
    pub(crate) fn withhold(&mut self, key: Option<u64>) {
        self.running -= 1;
        self.blocked = matches!(self.order, Order::Strict { .. });
        debug_assert!(key.is_none_or(|key| self.busy.contains_key(&key)), "it was handed out");
    }

    /// What was handed out as the next is not started, and comes first again.
    pub(crate) fn put_back(&mut self, key: Option<u64>, deliveries: Vec<Delivery>) {
        self.running -= 1;
        deliveries.into_iter().rev().for_each(|delivery| self.restart(key, delivery));
    }

    /// What has failed is being dead-lettered: its key, or the stream, waits. Comes before its lane is free.
    pub(crate) fn block(&mut self, key: Option<u64>) {
        match (&self.order, key) {
            (Order::Strict { .. }, _) => self.blocked = true,
            (Order::Keyed { .. }, Some(key)) => drop(self.failed.insert(key)),
            _ => {}
        }
    }

    /// It is dead-lettered, or is not ours any more.
    pub(crate) fn unblock(&mut self, key: Option<u64>) {
        self.blocked = false;
        // Where its lane is not free yet, that releases the key.
        if let Some(key) = key
            && !self.failed.remove(&key)
        {
            self.release(key);
        }
    }

    /// It is not to be dead-lettered after all: it comes first.
    pub(crate) fn restart(&mut self, key: Option<u64>, delivery: Delivery) {
        self.blocked = false;
        match key {
            Some(key) => self.runnable.push_front((key, delivery)),
            None => self.ready.push_front(delivery),
        }
    }

    fn next_keyed(&mut self, key: &KeyFn, now: Duration) -> Option<(u64, Delivery)> {
        // The key of a retry is still busy, so nothing of it can have overtaken.
        if let Some(delivery) = self.due(now) {
            return Some((key(&delivery), delivery));
        }
        if let Some(next) = self.runnable.pop_front() {
            return Some(next);
        }
        while let Some(delivery) = self.ready.pop_front() {
            let key = key(&delivery);
            match self.busy.get_mut(&key) {
                Some(behind) => behind.push_back(delivery),
                None => {
                    self.busy.insert(key, VecDeque::new());
                    return Some((key, delivery));
                }
            }
        }
        None
    }

    fn due(&mut self, now: Duration) -> Option<Delivery> {
        if self.retries.peek().is_some_and(|Reverse(retry)| retry.at <= now) {
            return self.retries.pop().map(|Reverse(retry)| retry.delivery);
        }
        None
    }

    /// When something that waits may start, unless a lane must become free first.
    pub(crate) fn wake(&self) -> Option<Duration> {
        match self.order {
            Order::Strict { .. } => {
                self.hold.filter(|_| self.running == 0 && !self.blocked).map(|(at, _)| at)
            }
            Order::Unordered { lanes } | Order::Keyed { lanes, .. } => {
                self.retries.peek().filter(|_| self.running < lanes).map(|Reverse(retry)| retry.at)
            }
        }
    }

    /// Takes out all that is not started. A key whose delivery runs stays busy until its lane is free.
    pub(crate) fn drain(&mut self) -> Vec<Delivery> {
        self.hold = None;
        let mut drained: Vec<_> = self.ready.drain(..).collect();
        for Reverse(Retry { delivery, .. }) in std::mem::take(&mut self.retries) {
            if let Order::Keyed { key, .. } = &self.order {
                let key = key(&delivery);
                // Without its retry, nothing keeps the key busy but the lane that may not be free yet.
                if !self.failed.remove(&key) {
                    drained.extend(self.busy.remove(&key).into_iter().flatten());
                }
            }
            drained.push(delivery);
        }
        let suspects = std::mem::take(&mut self.suspects).into_iter();
        let runnable = std::mem::take(&mut self.runnable).into_iter().map(|(key, next)| (Some(key), next));
        for (key, delivery) in runnable.chain(suspects) {
            drained.push(delivery);
            drained.extend(key.and_then(|key| self.busy.remove(&key)).into_iter().flatten());
        }
        self.busy.values_mut().for_each(|behind| drained.extend(behind.drain(..)));
        drained
    }
}
