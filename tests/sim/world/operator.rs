//! What an operator does, or a mishap: a lost group, trimming, another stream, another position, and a writer of the past.

use highwater::{
    ConsumerName, EntryId, Epoch, ErrorKind, Position, Result,
    backend::{
        Advance, CheckpointBackend, Release, Removal, Renew, ResetCheckpoint, StreamBackend, Trim, TrimLimit,
    },
};

use super::{Verdict, World};
use crate::{server::late::LATE_MAX, setup::TTL};

impl World {
    pub(super) async fn lose_group(&mut self) {
        if self.setup.is_shared() {
            self.remove(Removal::Group(self.place.subscription.clone())).await;
        }
    }

    /// Trims what is settled, or also what is not.
    pub(super) async fn trim(&mut self, lossy: bool) {
        let Some(last) = self.choose(|id, settled| lossy || id <= settled) else { return };
        let below = last.next().expect("the ids are small");
        let trim = Trim::new(self.place.subscription.stream.clone(), TrimLimit::Below(below));
        self.server.trim(&trim).await.expect("the operator's stores answer");
    }

    /// Deletes one entry, somewhere.
    pub(super) async fn delete(&mut self) {
        let Some(id) = self.choose(|_, _| true) else { return };
        self.remove(Removal::Entries(self.place.subscription.stream.clone(), vec![id])).await;
    }

    /// One of the entries that are there, by its id and the watermark.
    pub(super) fn choose(&mut self, which: impl Fn(EntryId, EntryId) -> bool) -> Option<EntryId> {
        let ids: Vec<_> = {
            let audit = self.audit().lock();
            if audit.stale {
                return None;
            }
            let settled = audit.position().map(|position| position.watermark).unwrap_or_default();
            let there = audit.current().filter(|fact| fact.removed.is_none()).map(|fact| fact.id);
            there.filter(|&id| which(id, settled)).collect()
        };
        (!ids.is_empty()).then(|| ids[self.random.usize(..ids.len())])
    }

    /// G4: whoever holds an epoch that is over changes nothing, whatever its name.
    pub(super) async fn stale_write(&mut self) -> Verdict {
        let epoch = self.audit().lock().epoch();
        if epoch.0 == 0 {
            return Ok(());
        }
        let old = Epoch(self.random.u64(..epoch.0));
        let subscription = || self.place.subscription.clone();
        let name = ConsumerName::new("c-of-the-past").expect("a valid name");
        let position = Position::at(EntryId::new(self.next.ms + 1_000, 0));
        let store = &self.place.store;
        fenced("advance", store.advance(&Advance::new(subscription(), old, position, name)).await)?;
        fenced("renew", store.renew(&Renew::new(subscription(), old, TTL)).await)?;
        fenced("release", store.release(&Release::new(subscription(), old)).await)?;
        self.server.look().await.expect("the operator's stores answer");
        Ok(())
    }

    /// The subscription is paused, or goes on.
    pub(super) async fn pause(&mut self) {
        let operator = self.operator().force(true);
        if !self.paused && self.audit().lock().position().is_none() {
            return;
        }
        self.paused = !self.paused;
        let moved =
            if self.paused { operator.pause("the simulation").await } else { operator.resume().await };
        moved.expect("the operator's stores answer");
    }

    /// The checkpoint is set to some entry.
    pub(super) async fn reset(&mut self) {
        if let Some(to) = self.choose(|_, _| true) {
            self.set_checkpoint(to).await;
        }
    }

    /// Shared, the group is the truth, so it goes as well; and nobody works meanwhile who could ack what it handled before.
    pub(super) async fn set_checkpoint(&mut self, to: EntryId) {
        let alive = if self.setup.is_shared() { self.kill_all().await } else { 0 };
        let position = Position::at(to).with_ordinal(Some(self.audit().lock().ordinal(to)));
        let request = ResetCheckpoint::new(self.place.subscription.clone(), position).force(true);
        self.server.reset(&request).await.expect("the operator's stores answer");
        self.lose_group().await;
        (0..alive).for_each(|_| self.start());
    }

    /// The stream is deleted, and another one comes that uses the first of its ids again.
    pub(super) async fn recreate(&mut self) {
        let first = EntryId::new(1, 0);
        {
            let audit = self.audit().lock();
            if audit.stale || audit.position().is_none_or(|position| position.watermark <= first) {
                return;
            }
        }
        // In a shared subscription nobody may hold ids of the stream that goes: G8 says why.
        let alive = if self.setup.is_shared() { self.kill_all().await } else { 0 };
        self.audit().lock().end_life();
        self.remove(Removal::Stream(self.place.subscription.stream.clone())).await;
        self.next = first;
        self.append_some(1).await;
        (0..alive).for_each(|_| self.start());
    }

    /// Every consumer is killed. Returns how many there were.
    async fn kill_all(&mut self) -> usize {
        let actors = std::mem::take(&mut self.actors);
        let count = actors.len();
        for actor in actors {
            self.audit().lock().killed(actor.who);
            actor.kill().await;
        }
        // What they sent may still come.
        self.sleep(LATE_MAX).await;
        count
    }

    async fn remove(&self, removal: Removal) {
        self.audit().lock().note(format_args!("{removal:?}"));
        self.server.remove(&removal).await.expect("the operator's stores answer");
    }
}

fn fenced<T: std::fmt::Debug>(what: &str, result: Result<T>) -> Verdict {
    match result {
        Err(error) if error.kind() == ErrorKind::Fenced => Ok(()),
        other => Err(format!("G4: a stale {what} was not fenced: {other:?}")),
    }
}
