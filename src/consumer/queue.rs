//! In which order deliveries are started: strictly, freely, or in order per key.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::Delivery;

/// Says which key a delivery belongs to, as a hash.
pub(crate) type KeyFn = Arc<dyn Fn(&Delivery) -> u64 + Send + Sync>;

/// How many deliveries one lane is given at once.
const CHUNK_MAX: usize = 1_000;

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
    retries: BinaryHeap<Reverse<Retry>>,
    retried: u64,
    /// Keyed: keys whose delivery has failed while its lane is not yet free.
    failed: HashSet<u64>,
    /// Keyed: what waits behind the delivery of its key that runs or waits for its retry.
    busy: HashMap<u64, VecDeque<Delivery>>,
    /// Keyed: the next of keys that have become free.
    runnable: VecDeque<(u64, Delivery)>,
}

impl Queue {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            ready: VecDeque::new(),
            running: 0,
            hold: None,
            retries: BinaryHeap::new(),
            retried: 0,
            failed: HashSet::new(),
            busy: HashMap::new(),
            runnable: VecDeque::new(),
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
        match self.busy.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.runnable.push_back((key, next)),
            None => drop(self.busy.remove(&key)),
        }
    }

    /// What to start now, if there is anything and a lane is free.
    pub(crate) fn next(&mut self, now: Duration) -> Option<(Option<u64>, Vec<Delivery>)> {
        let started = match self.order.clone() {
            Order::Strict { chunk_max } => self.next_strict(chunk_max, now).map(|chunk| (None, chunk)),
            Order::Unordered { lanes } if self.running < lanes => {
                self.due(now).or_else(|| self.ready.pop_front()).map(|delivery| (None, vec![delivery]))
            }
            Order::Keyed { lanes, key } if self.running < lanes => {
                self.next_keyed(&key, now).map(|(key, delivery)| (Some(key), vec![delivery]))
            }
            Order::Unordered { .. } | Order::Keyed { .. } => None,
        };
        self.running += usize::from(started.is_some());
        started
    }

    fn next_strict(&mut self, chunk_max: usize, now: Duration) -> Option<Vec<Delivery>> {
        if self.running > 0 || self.ready.is_empty() {
            return None;
        }
        let chunk = match self.hold {
            Some((at, _)) if now < at => return None,
            Some((_, len)) => len,
            None => chunk_max,
        };
        self.hold = None;
        Some(self.ready.drain(..chunk.min(self.ready.len())).collect())
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
            Order::Strict { .. } => self.hold.filter(|_| self.running == 0).map(|(at, _)| at),
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
        for (key, delivery) in std::mem::take(&mut self.runnable) {
            drained.push(delivery);
            drained.extend(self.busy.remove(&key).into_iter().flatten());
        }
        self.busy.values_mut().for_each(|behind| drained.extend(behind.drain(..)));
        drained
    }
}
