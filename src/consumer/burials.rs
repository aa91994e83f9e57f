//! Entries that were given up and are not dead-lettered yet.

use std::{collections::VecDeque, time::Duration};

use crate::{Attempts, Delivery, Doom, EntryId};

/// The most letters that are written together.
const BATCH_MAX: usize = 100;

/// An entry on its way to the dead letters.
#[derive(Debug, Clone)]
pub(crate) struct Burial {
    pub(crate) delivery: Delivery,
    pub(crate) key: Option<u64>,
    pub(crate) doom: Doom,
    pub(crate) attempts: Attempts,
}

/// Those that wait, in order, and those that are being written.
#[derive(Debug, Default)]
pub(crate) struct Burials {
    waiting: VecDeque<(Duration, Burial)>,
    under_way: Vec<Burial>,
}

impl Burials {
    pub(crate) fn push(&mut self, burial: Burial) {
        self.waiting.push_back((Duration::ZERO, burial));
    }

    /// Tries again, not before this time.
    pub(crate) fn again(&mut self, burials: Vec<Burial>, at: Duration) {
        for burial in burials.into_iter().rev() {
            self.waiting.push_front((at, burial));
        }
    }

    /// What to write now, of what is ready, if nothing is being written.
    pub(crate) fn next(&mut self, now: Duration, ready: impl Fn(EntryId) -> bool) -> Option<Vec<Burial>> {
        if !self.under_way.is_empty() {
            return None;
        }
        let mut taken = Vec::new();
        for (at, burial) in std::mem::take(&mut self.waiting) {
            if at <= now && taken.len() < BATCH_MAX && ready(burial.delivery.id()) {
                taken.push(burial);
            } else {
                self.waiting.push_back((at, burial));
            }
        }
        self.under_way.clone_from(&taken);
        Some(taken).filter(|taken| !taken.is_empty())
    }

    /// What was being written, in its order.
    pub(crate) fn end(&mut self) -> Vec<Burial> {
        std::mem::take(&mut self.under_way)
    }

    /// Takes out all that is not being written.
    pub(crate) fn drain(&mut self) -> Vec<Burial> {
        self.waiting.drain(..).map(|(_, burial)| burial).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// When to look again, if nothing is being written. What is not ready becomes so by another event.
    pub(crate) fn wake(&self, ready: impl Fn(EntryId) -> bool) -> Option<Duration> {
        if !self.under_way.is_empty() {
            return None;
        }
        let ready = self.waiting.iter().filter(|(_, burial)| ready(burial.delivery.id()));
        ready.map(|(at, _)| *at).min()
    }
}
