//! The world around a machine, as a model: a stream, its group, a durable checkpoint, other consumers, and lanes that finish in
//! any order.

mod lanes;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::shape::{Ordering, Shape, key};
use crate::{
    Delivery, Entry, EntryId, Fields, Position,
    backend::Fate,
    consumer::{
        burials::Burial,
        ledger::Save,
        machine::{Action, Event, Machine, Slot},
    },
    fuzzing::Source,
};

#[derive(Debug)]
struct Lane {
    slot: Slot,
    chunk: VecDeque<Delivery>,
    started: bool,
    /// What a transaction is to store.
    position: Option<Position>,
}

#[derive(Debug)]
pub(super) struct World {
    shape: Shape,
    machine: Machine,
    now: Duration,
    stream: Vec<EntryId>,
    /// What left the stream before it was settled.
    gone: BTreeSet<EntryId>,
    /// What was handled, and how often.
    handled: BTreeMap<EntryId, u32>,
    /// What this process has handled.
    succeeded: BTreeSet<EntryId>,
    /// What it was called with for the first time, in order.
    called: Vec<EntryId>,
    /// Since then an entry that was acked may come again.
    group_lost: bool,
    /// Since then an entry of others may come behind later ones.
    claimed: bool,
    /// The resume path is asked for.
    resume: bool,
    lanes: Vec<Lane>,
    reads: VecDeque<usize>,
    save: Option<Save>,
    /// Shared: what the group has delivered. Exclusive: what was read.
    cursor: EntryId,
    /// What is pending for this consumer, and for others.
    pending: BTreeSet<EntryId>,
    foreign: BTreeSet<EntryId>,
    /// What a read of the pending list, whose reply is under way, has found.
    snapshot: Option<BTreeSet<EntryId>>,
    stored: Position,
    /// Where the machine, or the group, began.
    resumed: Position,
    /// What stores answer at once.
    answers: Vec<Event<()>>,
    stopped: bool,
    exhausted: bool,
    drained: bool,
    /// Lanes give back what they have not started.
    halted: bool,
    /// What comes of the next letters and notes, instead of success.
    mishap: Option<Mishap>,
}

/// What may go wrong with letters and notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    NotNoted,
    NotBuried,
    /// The letters are written, and nobody learns it.
    ReplyLost,
    /// A sink takes the first one only.
    OneTaken,
}

impl World {
    /// How long a store is left alone that could not answer.
    const WAIT: Duration = Duration::from_millis(5);

    pub(super) fn new(source: &mut Source<'_>) -> Self {
        let shape = Shape::of(source);
        let stored = Position::default();
        let mut world = Self {
            machine: shape.machine(&stored),
            shape,
            now: Duration::ZERO,
            stream: Vec::new(),
            gone: BTreeSet::new(),
            handled: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            called: Vec::new(),
            group_lost: false,
            claimed: false,
            resume: false,
            lanes: Vec::new(),
            reads: VecDeque::new(),
            save: None,
            cursor: EntryId::ZERO,
            pending: BTreeSet::new(),
            foreign: BTreeSet::new(),
            snapshot: None,
            resumed: stored.clone(),
            stored,
            answers: Vec::new(),
            stopped: false,
            exhausted: false,
            drained: false,
            halted: false,
            mishap: None,
        };
        world.begin();
        world
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn drained(&self) -> bool {
        self.drained
    }

    /// A consumer begins with its pending entries.
    fn begin(&mut self) {
        self.feed(Event::Tick);
        if self.shape.shared {
            self.snapshot = Some(self.pending.clone());
        }
    }

    pub(super) fn feed(&mut self, event: Event<()>) {
        let tick = matches!(event, Event::Tick);
        let mut actions = Vec::new();
        let before = self.machine.counts();
        self.machine.on(event, self.now, &mut actions);
        let after = self.machine.counts();
        self.resume |= after.lapsed > before.lapsed || after.refused > before.refused;
        let nothing = actions.is_empty();
        for action in actions {
            self.carry_out(action);
        }
        if tick && nothing {
            let wake = self.machine.wake();
            assert!(wake.is_none_or(|wake| wake > self.now), "G16: a hot loop at {wake:?}: {self:?}");
        }
        if std::mem::take(&mut self.exhausted) {
            self.stop();
        }
        for answer in std::mem::take(&mut self.answers) {
            self.feed(answer);
        }
    }

    fn carry_out(&mut self, action: Action<()>) {
        let limits = &self.shape.limits;
        match action {
            Action::Read { limit } => {
                assert!(!self.stopped && self.reads.len() < 2, "a read while two are under way: {self:?}");
                assert!((1..=limits.read_entries_max).contains(&limit), "a read of {limit}");
                let held = self.machine.in_flight() + self.reads.iter().sum::<usize>() + limit;
                assert!(held <= limits.in_flight_entries_max, "G17: room for {held}: {self:?}");
                self.reads.push_back(limit);
            }
            Action::Start { slot, deliveries } => self.start(slot, deliveries),
            Action::Note(_) => {
                let fails = self.mishap.take_if(|mishap| *mishap == Mishap::NotNoted).is_some();
                let again = self.now + Self::WAIT;
                self.answers.push(if fails { Event::NotNoted(again) } else { Event::Noted });
            }
            Action::Bury(burials) => {
                let answer = self.bury(&burials);
                self.answers.push(answer);
            }
            Action::Skipped { id, .. } => drop(self.gone.insert(id)),
            Action::Save(save) => {
                assert!(self.save.is_none(), "a save while one is under way: {self:?}");
                self.save = Some(save);
            }
            Action::Exhausted { .. } | Action::Doomed { .. } => self.exhausted = true,
            Action::Drained => {
                assert!(self.stopped || self.exhausted, "drained and not stopped: {self:?}");
                assert!(!self.drained && self.lanes.is_empty() && self.save.is_none(), "{self:?}");
                assert_eq!(self.machine.unsaved(), 0, "G1: drained with something unsaved");
                self.drained = true;
            }
        }
    }

    fn start(&mut self, slot: Slot, deliveries: Vec<Delivery>) {
        let lane = slot.key;
        assert!(!self.stopped, "G15: started behind a stop: {self:?}");
        assert!(!deliveries.is_empty() && self.lanes.len() < self.shape.lanes(), "{self:?}");
        assert!(
            lane.is_none() || self.lanes.iter().all(|other| other.slot.key != lane),
            "G10: a key in two lanes"
        );
        for delivery in &deliveries {
            let id = delivery.id();
            assert!(lane.is_none_or(|lane| lane == key(id)), "{id} in the lane of {lane:?}");
            assert!(!self.running(id), "{id} in two lanes: {self:?}");
            assert!(!self.resumed.settles(id), "G5: {id} was settled and came again: {self:?}");
        }
        let position = self.shape.transactional().then(|| self.machine.ledger().position_after(&deliveries));
        self.halted = false;
        let chunk = deliveries.into();
        self.lanes.push(Lane { slot, chunk, started: false, position: position.flatten() });
    }

    fn bury(&mut self, burials: &[Burial]) -> Event<()> {
        let mishap = self.mishap.take_if(|mishap| *mishap != Mishap::NotNoted);
        let again = self.now + Self::WAIT;
        if mishap == Some(Mishap::NotBuried) {
            return Event::NotBuried(again);
        }
        let taken = if mishap == Some(Mishap::OneTaken) { 1 } else { burials.len() };
        let ids = burials.iter().take(taken).map(|burial| burial.delivery.id());
        let fates = ids.map(|id| Some(self.buries(id))).collect();
        if mishap == Some(Mishap::ReplyLost) { Event::NotBuried(again) } else { Event::Buried(fates) }
    }

    /// The dead letter is written, together with the ack where there is one.
    fn buries(&mut self, id: EntryId) -> Fate {
        if self.shape.shared && !self.pending.remove(&id) {
            return Fate::NotHeld;
        }
        self.gone.insert(id);
        Fate::Buried
    }

    fn running(&self, id: EntryId) -> bool {
        self.lanes.iter().flat_map(|lane| &lane.chunk).any(|delivery| delivery.id() == id)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.feed(Event::Tick);
    }

    /// From now on, the next of these goes wrong; `None`: none does.
    pub(super) fn go_wrong(&mut self, mishap: Option<Mishap>) {
        self.mishap = mishap;
    }

    pub(super) fn stop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.halted = true;
            // A blocked read is dropped, as are others.
            (self.reads, self.snapshot) = Default::default();
            self.feed(Event::Stop);
        }
    }

    /// The process dies, and another one takes its place.
    pub(super) fn crash(&mut self) {
        self.machine = self.shape.machine(&self.stored);
        self.lanes.clear();
        (self.reads, self.save, self.snapshot) = Default::default();
        self.succeeded.clear();
        self.called.clear();
        (self.stopped, self.drained, self.halted, self.group_lost) = (false, false, false, false);
        (self.claimed, self.resume) = (false, false);
        self.resumed = self.stored.clone();
        if !self.shape.shared {
            self.cursor = self.stored.watermark;
        }
        self.begin();
    }

    /// What holds at any time.
    pub(super) fn check(&self) {
        let counts = self.machine.counts();
        let open = counts.delivered - counts.ended();
        let in_lanes = self.lanes.iter().map(|lane| lane.chunk.len()).sum::<usize>();
        let in_flight = self.machine.in_flight();
        if self.stopped {
            assert_eq!(in_flight, in_lanes, "{self:?}");
            assert!(open >= in_flight as u64, "{self:?}");
        } else {
            assert_eq!(in_flight as u64, open, "{self:?}");
            assert!(in_flight >= in_lanes, "{self:?}");
        }
        assert!(self.machine.room() <= self.shape.limits.in_flight_entries_max, "{self:?}");
    }

    /// Without mishap, the next thing that happens; `false` if nothing does any more.
    pub(super) fn goes_on(&mut self) -> bool {
        if !self.lanes.is_empty() {
            self.lane_succeeds(0);
        } else if self.save.is_some() {
            self.save_succeeds(true);
        } else if self.snapshot.is_some() {
            self.redeliver();
        } else if !self.reads.is_empty() && self.stream.last().is_some_and(|&last| last > self.cursor) {
            self.answer_read(8, false);
        } else if !self.stopped && !self.foreign.is_empty() && self.machine.room() > 0 {
            self.claim(8);
        } else if let Some(wake) = self.machine.wake() {
            self.pass(wake.saturating_sub(self.now));
        } else if !self.stopped && (self.resume || !self.pending.is_empty()) {
            // What lapsed comes again by the resume path.
            self.redeliver();
        } else {
            return false;
        }
        true
    }

    pub(super) fn check_all_is_settled(&self) {
        for id in &self.stream {
            let done = self.handled.contains_key(id) || self.gone.contains(id);
            assert!(done, "G1: {id} was not handled: {self:?}");
            let settled = self.shape.shared || self.stored.settles(*id);
            assert!(settled, "G5: {id} is not in the checkpoint: {self:?}");
        }
        assert!(self.pending.is_empty() && self.foreign.is_empty(), "G1: not acked: {self:?}");
        assert_eq!((self.machine.in_flight(), self.machine.unsaved()), (0, 0), "{self:?}");
        assert!(!self.reads.is_empty(), "G16: nobody reads any more: {self:?}");
    }

    /// G10: a first call comes behind those before it, in the stream or of its key.
    fn check_order(&self) {
        let Some((&last, before)) = self.called.split_last() else { return };
        let previous = match self.shape.ordering {
            // Nor is there an order with what others held, or with what a new group delivers anew.
            _ if self.shape.shared && (self.claimed || self.group_lost) => None,
            Ordering::Strict { .. } => before.last(),
            Ordering::Keyed { .. } => before.iter().rev().find(|id| key(**id) == key(last)),
            Ordering::Unordered { .. } => None,
        };
        // What was given back after a lapse may be called with for the first time twice.
        let in_order = previous < Some(&last) || (self.shape.shared && previous == Some(&last));
        assert!(in_order, "G10: {last} was handled behind {previous:?}: {self:?}");
    }

    fn delivery(id: EntryId) -> Delivery {
        // Of different sizes.
        let value = "x".repeat(id.ms as usize * 7 % 31);
        Delivery::new(Entry::new(id, Fields::from_iter([("n", value)])), 1)
    }
}
