//! The world of a sequence: consumers over real stores, an operator, and what is known of both.

mod supervisor;

use std::{
    sync::{Arc, atomic},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    Stores,
    actor::{Actor, Call, Desk, TTL},
    facts::{Fact, Facts, Verdict, Witness},
    letters::fields_of,
    plan::{Op, Ordering, Setup, Store},
    run::Time,
};
use crate::{
    EntryId, Error, Ownership, Subscription,
    backend::{Append, CheckpointBackend, NewEntry, Removal, StreamBackend},
    clock::Clock,
    integrity::Gap,
    layer::Fault,
};

/// Within this time a pause is known to whoever can reach the checkpoint.
const PAUSED: Duration = Duration::from_secs(2);

/// How often the model looks while it waits.
pub(super) const POLL: Duration = Duration::from_millis(2);

/// The system under test, and what is known of it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) stores: Stores,
    pub(super) subscription: Subscription,
    pub(super) facts: Facts,
    pub(super) actors: Vec<Actor>,
    started: usize,
    /// Handlers that wait, in the order in which they were called.
    pub(super) out: Vec<(Option<u64>, Call)>,
    desk: Desk,
    calls: mpsc::UnboundedReceiver<Call>,
    clock: Clock,
    /// Gaps that were told, in this life of the stream.
    pub(super) gaps: Vec<Gap>,
    /// Consumers that handled an entry which had a letter: they must have lost it before.
    pub(super) suspects: Vec<(usize, u64)>,
    /// When the last reset was, or the stream was created anew.
    pub(super) reset_at: Option<Duration>,
    /// When a consumer last noticed that its lease or its heartbeat had run out.
    pub(super) lost_at: Option<Duration>,
    /// The subscription is paused, since then.
    pub(super) paused: Option<Duration>,
    /// The last letter that was read.
    pub(super) last_letter: EntryId,
    pub(super) deliveries: u64,
    pub(super) time: Time,
}

impl World {
    pub(super) fn new(mut setup: Setup, stores: Stores, stream: String, time: Time) -> Self {
        setup.transactional &= stores.transactional.is_some();
        if setup.transactional && setup.ownership == Ownership::Exclusive {
            setup.ordering = Ordering::Strict;
        }
        let (calls, receiver) = mpsc::unbounded_channel();
        Self {
            facts: Facts::new(setup.clone()),
            setup,
            stores,
            subscription: Subscription::new(stream, "g").expect("a valid name"),
            actors: Vec::new(),
            started: 0,
            out: Vec::new(),
            desk: Desk { calls, notes: Arc::default(), era: Arc::default() },
            calls: receiver,
            clock: Clock::started(),
            gaps: Vec::new(),
            suspects: Vec::new(),
            reset_at: None,
            lost_at: None,
            paused: None,
            last_letter: EntryId::ZERO,
            deliveries: 0,
            time,
        }
    }

    /// One step, and a look at all of it.
    pub(super) async fn step(&mut self, op: &Op) -> Verdict {
        self.apply(op).await?;
        self.clock.sleep(Duration::from_millis(1)).await;
        self.observe().await
    }

    async fn apply(&mut self, op: &Op) -> Verdict {
        match *op {
            Op::Append(count) => self.append(count).await?,
            Op::Start => self.start(),
            Op::Settle(nth, count) => self.settle(nth, count),
            Op::Fail(nth) => {
                if let Some((n, call)) = take(&mut self.out, nth) {
                    n.into_iter().for_each(|n| self.facts.fact(n).failures += 1);
                    // Who has gone needs no verdict.
                    let _ = call.verdict.send(Err("the model says so".into()));
                }
            }
            Op::Reject(nth) => self.reject(nth),
            Op::Redrive(nth, append) => self.redrive(nth, append).await?,
            Op::Crash(nth) => {
                if let Some(actor) = take(&mut self.actors, nth) {
                    self.acquit(actor.witness.who);
                    self.out.retain(|(_, call)| call.who != actor.witness.who);
                }
            }
            Op::Stop(nth, ends) => self.stop(nth, ends).await?,
            Op::Wait(ms) => self.clock.sleep(Duration::from_millis(ms.into())).await,
            Op::ReplyLost(nth, operation) => {
                if let Some(actor) = pick(&mut self.actors, nth) {
                    actor.fault(operation, Fault::After);
                    // What a renewal whose reply was lost has found, it finds again; a heartbeat, too, reads pending anew.
                    actor.witness.forgiven |= self.setup.ownership == Ownership::Exclusive;
                }
            }
            Op::Late(nth, operation, ms) => {
                if let Some(actor) = pick(&mut self.actors, nth) {
                    actor.fault(operation, Fault::Delay(Duration::from_millis(ms.into())));
                }
            }
            Op::Away(nth, store) => {
                if let Some(actor) = pick(&mut self.actors, nth) {
                    actor.away(store);
                }
            }
            Op::Stall(nth) => {
                if let Some(actor) = pick(&mut self.actors, nth) {
                    actor.away(Store::Both);
                    self.clock.sleep(TTL + TTL / 3).await;
                }
            }
            Op::LateReject(nth) => self.late_reject(nth).await,
            Op::Back => self.back(),
            Op::StaleWrite(back) => self.stale_write(back).await?,
            Op::GroupDestroyed => {
                self.look().await?;
                self.facts.lose_group();
                self.suspects.clear();
                let settled = self.facts.settled();
                for actor in &mut self.actors {
                    actor.witness.forgiven = true;
                    actor.witness.settled.retain(|n| settled.contains(n));
                }
                self.remove(Removal::Group(self.subscription.clone())).await?;
            }
            Op::Trim(upto, lossy) => self.trim(upto, lossy).await?,
            Op::Recreated => self.recreate().await?,
            Op::Reset(to) => self.reset(to).await?,
            Op::Pause(paused) => self.pause(paused).await?,
        }
        Ok(())
    }

    /// Takes in what has happened: calls of handlers, notes, ends, and the checkpoint.
    pub(super) async fn observe(&mut self) -> Verdict {
        self.read_notes()?;
        let mut calls = Vec::new();
        while let Ok(call) = self.calls.try_recv() {
            calls.push(call);
        }
        // What comes before a call, in the stores, is seen before it.
        if self.setup.transactional || self.facts.any_rejected() {
            self.look().await?;
        }
        calls.into_iter().try_for_each(|call| self.called(call))?;
        self.out.retain(|(_, call)| !call.verdict.is_closed());
        while let Some(at) = self.actors.iter().position(|actor| actor.task.is_finished()) {
            let actor = self.actors.remove(at);
            self.ended(actor).await?;
        }
        self.look().await
    }

    pub(super) async fn look(&mut self) -> Verdict {
        let checkpoint = self.stores.checkpoints.load(&self.subscription).await.map_err(typed)?;
        self.read_letters().await?;
        self.read_rows().await?;
        self.facts.look(checkpoint.as_ref())
    }

    /// What is committed is looked at behind the checkpoint that says so.
    pub(super) async fn read_rows(&mut self) -> Verdict {
        let Some(store) = self.stores.transactional.as_ref().filter(|_| self.setup.transactional) else {
            return Ok(());
        };
        let rows = store.rows(self.subscription.stream.as_str()).await.map_err(typed)?;
        self.facts.committed(&rows)
    }

    fn called(&mut self, call: Call) -> Verdict {
        self.deliveries += 1;
        if call.verdict.is_closed() {
            // Dropped again before anybody looked, perhaps by a session that has ended since.
            return Ok(());
        }
        // Who crashed may have called a handler just before.
        let Some(actor) = self.actors.iter().find(|actor| actor.witness.who == call.who) else {
            return Ok(());
        };
        // Who cannot reach the checkpoint cannot know.
        if actor.is_sound() && self.paused.is_some_and(|since| self.now() > since + PAUSED) {
            return Err(format!("paused: consumer {} goes on with {}", call.who, call.delivery.id()));
        }
        let n = self.facts.called(&actor.witness, &call.delivery)?;
        if n.is_some() {
            self.out.push((n, call));
        } else {
            // An entry of a stream that is no more: whoever holds it handles it, since it does not know.
            let _ = call.verdict.send(Ok(()));
        }
        Ok(())
    }

    pub(super) fn start(&mut self) {
        let facts = &self.facts;
        let witness = Witness {
            who: self.started,
            life: facts.life,
            era: facts.era,
            settled: facts.settled(),
            ..Witness::default()
        };
        self.started += 1;
        let actor = Actor::start(witness, &self.setup, &self.stores, &self.subscription, &self.desk);
        self.actors.push(actor);
    }

    async fn append(&mut self, count: u8) -> Verdict {
        // Longer than the checkpoint says, a new stream looks like the old one where streams have no names.
        if self.facts.stale.is_some() { Ok(()) } else { self.append_in_life(count).await }
    }

    pub(super) async fn append_in_life(&mut self, count: u8) -> Verdict {
        let mut entries = Vec::new();
        for _ in 0..count {
            let id = EntryId::new(self.facts.next_ms, 0);
            let n = self.facts.entries.len() as u64;
            entries.push(NewEntry::new(fields_of(n)).with_id(id));
            self.facts.next_ms += 1 + n % 3;
            self.facts.entries.push(Fact::new(id, self.facts.life));
        }
        let append = Append::new(self.subscription.stream.clone(), entries);
        for appended in self.stores.stream.append(&append).await.map_err(typed)? {
            appended.map_err(typed)?;
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, nth: u8, count: u8) {
        for _ in 0..count {
            let Some((Some(n), call)) = take(&mut self.out, nth) else { return };
            if call.verdict.is_closed() {
                continue;
            }
            self.suspect(n, call.who);
            if !self.setup.transactional {
                self.facts.handled(n);
            }
            if let Some(actor) = self.actors.iter_mut().find(|actor| actor.witness.who == call.who)
                // Whether what it wrote is committed, is not known yet.
                && !self.setup.transactional
            {
                actor.witness.succeeded.insert(n);
            }
            // It was open, and nothing else has run since.
            let _ = call.verdict.send(Ok(()));
        }
    }

    /// A consumer stops gracefully.
    pub(super) async fn stop(&mut self, nth: u8, ends: bool) -> Verdict {
        let Some(mut actor) = take(&mut self.actors, nth) else { return Ok(()) };
        actor.stop();
        self.actors.push(actor);
        let since = self.now();
        // It is the last one until it ends, since nobody else starts or ends meanwhile.
        let who = self.actors.last().expect("it was pushed").witness.who;
        while self.actors.iter().any(|actor| actor.witness.who == who) {
            if ends {
                while let Some(at) = self.out.iter().position(|(_, call)| call.who == who) {
                    self.settle_at(at);
                }
            }
            if self.now().saturating_sub(since) > self.time.patience {
                return Err(format!("G15: consumer {who} does not stop"));
            }
            self.sleep(POLL).await;
            self.observe().await?;
        }
        Ok(())
    }

    fn settle_at(&mut self, at: usize) {
        self.out.rotate_left(at);
        self.settle(0, 1);
    }

    /// What consumers are granted from now on is of another time.
    pub(super) fn next_era(&mut self) {
        self.reset_at = Some(self.now());
        self.desk.era.store(self.facts.era, atomic::Ordering::Relaxed);
    }

    /// What is out ends well, all of it.
    pub(super) fn settle_all(&mut self) {
        while !self.out.is_empty() {
            self.settle(0, u8::MAX);
        }
    }

    /// Every consumer is gone. Returns how many there were.
    pub(super) fn crash_all(&mut self) -> usize {
        self.out.clear();
        self.actors.drain(..).count()
    }

    pub(super) fn back(&self) {
        self.actors.iter().for_each(Actor::back);
    }

    pub(super) fn alive(&self) -> usize {
        self.actors.len()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.setup.ownership == Ownership::Shared
    }

    /// Whether acks, checkpoint and effects are one step.
    pub(super) fn is_fused(&self) -> bool {
        self.stores.fused.is_some() && (self.setup.fused || self.setup.transactional)
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    pub(super) async fn remove(&self, removal: Removal) -> Verdict {
        self.stores.stream.remove(&removal).await.map(drop).map_err(typed)
    }
}

/// The store of the model's own calls is never away.
pub(super) fn typed(error: Error) -> String {
    format!("typed: the operator's call failed with {error:?}")
}

pub(super) fn pick<T>(all: &mut [T], nth: u8) -> Option<&mut T> {
    let len = all.len();
    all.get_mut(usize::from(nth).checked_rem(len)?)
}

pub(super) fn take<T>(all: &mut Vec<T>, nth: u8) -> Option<T> {
    let at = usize::from(nth).checked_rem(all.len())?;
    Some(all.remove(at))
}
