//! What happens to a subscription from outside, and how a sequence ends.

use std::time::Duration;

use super::{
    actor::Actor,
    facts::Verdict,
    world::{POLL, World, typed},
};
use crate::{
    ConsumerName, EntryId, Epoch, ErrorKind, Position, Result,
    backend::{Advance, CheckpointBackend, Release, Removal, Renew, ResetCheckpoint, Trim, TrimLimit},
    integrity::Gap,
};

/// Within this time a consumer holds the stream against the checkpoint, and has claimed what others left.
const PROBES: Duration = Duration::from_millis(1_200);

/// So many times its patience is the most that the model waits for consumers that begin again and again.
const SLOWER_MAX: u32 = 5;

/// Who read to the end so long ago looks at the stream before it reads on. Entries that come and go within this time may pass
/// unseen: a limit of G7.
const QUIET: Duration = Duration::from_millis(12);

impl World {
    /// G4: whoever holds an epoch that is over changes nothing, whatever its name.
    pub(super) async fn stale_write(&mut self, back: u8) -> Verdict {
        self.look().await?;
        let Some((epoch, _)) = self.facts.seen.clone().filter(|(epoch, _)| epoch.0 > 0) else {
            return Ok(());
        };
        let old = Epoch(epoch.0 - 1 - u64::from(back) % epoch.0);
        let subscription = || self.subscription.clone();
        let name = ConsumerName::new("c0").expect("a valid name");
        let position = Position::at(EntryId::new(self.facts.next_ms + 1_000, 0));
        let store = &self.stores.checkpoints;
        let advance = Advance::new(subscription(), old, position, name);
        fenced("advance", store.advance(&advance).await)?;
        fenced("renew", store.renew(&Renew::new(subscription(), old, super::actor::TTL)).await)?;
        fenced("release", store.release(&Release::new(subscription(), old)).await)?;
        self.look().await
    }

    pub(super) async fn trim(&mut self, upto: u8, lossy: bool) -> Verdict {
        if lossy {
            self.sleep(QUIET).await;
            self.observe().await?;
        }
        self.look().await?;
        if self.facts.stale.is_some() {
            return Ok(());
        }
        let ids: Vec<_> =
            self.facts.current().filter(|(_, fact)| !fact.removed).map(|(_, fact)| fact.id).collect();
        let watermark = self.facts.watermark().unwrap_or_default();
        let choice: Vec<_> = ids.into_iter().filter(|id| lossy || *id <= watermark).collect();
        let Some(&last) = usize::from(upto).checked_rem(choice.len()).and_then(|at| choice.get(at)) else {
            return Ok(());
        };
        let below = last.next().expect("the ids of the model are small");
        let trim = Trim::new(self.subscription.stream.clone(), TrimLimit::Below(below));
        // Marked before, since a consumer may skip them at once.
        let position = self.facts.seen.as_ref().map(|(_, position)| position.clone()).unwrap_or_default();
        self.facts.trimmed = true;
        self.facts.may_gap |= choice.iter().any(|&id| id <= last && !position.settles(id));
        // Where the call is late, entries may go between a look at the stream and the read behind it. Only who counts finds them.
        let counts = !self.is_shared() && position.ordinal.is_some();
        let unseen = !counts && self.actors.iter().any(Actor::is_late);
        self.facts.remove_up_to(last, unseen);
        self.stores.stream.trim(&trim).await.map(drop).map_err(typed)
    }

    /// The stream is deleted, and another one comes that uses the first of its ids again.
    pub(super) async fn recreate(&mut self) -> Verdict {
        self.look().await?;
        let first = EntryId::new(1, 0);
        let Some(watermark) = self.facts.watermark().filter(|&watermark| watermark > first) else {
            return Ok(());
        };
        if self.facts.stale.is_some() {
            return Ok(());
        }
        // An ack that is a step of its own carries no epoch: whoever holds ids of the stream that goes may ack them in the next
        // one before it notices. G8 names this limit.
        let alive = if self.is_shared() && !self.is_fused() { self.crash_all() } else { 0 };
        self.gaps.clear();
        self.suspects.clear();
        self.facts.end_life(watermark);
        self.remove(Removal::Stream(self.subscription.stream.clone())).await?;
        self.settle_all();
        self.append_in_life(1).await?;
        self.next_era();
        (0..alive).for_each(|_| self.start());
        Ok(())
    }

    /// An operator sets the checkpoint to some entry.
    pub(super) async fn reset(&mut self, to: u8) -> Verdict {
        self.look().await?;
        if self.facts.stale.is_some() {
            return Ok(());
        }
        let ids: Vec<_> = self.facts.current().map(|(_, fact)| fact.id).collect();
        let Some(to) = usize::from(to).checked_rem(ids.len()).map(|at| ids[at]) else { return Ok(()) };
        self.set_checkpoint(to).await
    }

    /// An operator pauses the subscription, or ends the pause. Owners are fenced by it.
    pub(super) async fn pause(&mut self, paused: bool) -> Verdict {
        let request = ResetCheckpoint::pause(self.subscription.clone(), paused).force(true);
        self.stores.checkpoints.reset(&request).await.map_err(typed)?;
        self.paused = paused.then(|| self.now());
        // A lease that was granted until now is over.
        self.read_notes()?;
        for actor in &mut self.actors {
            (actor.witness.forgiven, actor.witness.fenced) = (true, true);
        }
        Ok(())
    }

    /// Shared, the group is the truth, so it goes as well; and nobody works meanwhile who could ack what it handled before.
    pub(super) async fn set_checkpoint(&mut self, to: EntryId) -> Verdict {
        let is_shared = self.is_shared();
        let alive = if is_shared { self.crash_all() } else { 0 };
        let request = ResetCheckpoint::new(self.subscription.clone(), Position::at(to)).force(true);
        self.stores.checkpoints.reset(&request).await.map_err(typed)?;
        if is_shared {
            self.remove(Removal::Group(self.subscription.clone())).await?;
        }
        self.suspects.clear();
        // What an older epoch committed until now, it did before.
        self.read_letters().await?;
        self.read_rows().await?;
        self.facts.begin_rows(to);
        self.facts.reset(to);
        self.next_era();
        self.look().await?;
        (0..alive).for_each(|_| self.start());
        Ok(())
    }

    /// No more mishaps: all must be handled and saved, and then nothing comes again.
    pub(super) async fn finish(&mut self) -> Verdict {
        self.back();
        // An epoch that ends makes all sessions begin again, and whatever was stuck would come loose.
        if self.paused.is_some() {
            self.pause(false).await?;
        }
        // What only the group knows as settled reaches the checkpoint with the next save.
        self.wait(false).await?;
        self.judge().await?;
        while self.alive() > 0 {
            self.stop(0, true).await?;
        }
        self.look().await?;
        // G5: what a new consumer is given after a stop is what was appended since, and nothing else.
        self.append_in_life(1).await?;
        self.start();
        self.wait(true).await?;
        while self.alive() > 0 {
            self.stop(0, true).await?;
        }
        self.tell_gaps().await?;
        self.read_all_letters().await?;
        self.remove(Removal::Stream(self.graveyard())).await?;
        self.remove(Removal::Stream(self.subscription.stream.clone())).await
    }

    /// G7: of what left the stream and was not handled, somebody told; who starts at the latest.
    async fn tell_gaps(&mut self) -> Verdict {
        if !self.time.is_paused || self.untold().is_empty() {
            return Ok(());
        }
        self.start();
        self.sleep(PROBES).await;
        self.observe().await?;
        while self.alive() > 0 {
            self.stop(0, true).await?;
        }
        match self.untold()[..] {
            [] => Ok(()),
            [first, ..] => {
                Err(format!("G7: {first} left the stream unhandled, and no gap was told: {:?}", self.gaps))
            }
        }
    }

    fn untold(&self) -> Vec<EntryId> {
        // Who counts entries, and not only holds ids against each other, finds by the count where it stands that some are
        // missing, and cannot tell where before that they were.
        let counts = !self.is_shared();
        let told = |id| {
            let is_it = |gap: &Gap| gap.after < id && gap.before.is_none_or(|before| id < before);
            self.gaps.iter().any(|gap| is_it(gap) || (counts && id <= gap.after))
        };
        self.facts.lost().into_iter().filter(|&id| !told(id)).collect()
    }

    /// Waits until all is handled, and saved.
    async fn wait(&mut self, saved: bool) -> Verdict {
        let began = self.now();
        loop {
            if self.alive() == 0 {
                self.start();
            }
            self.settle(0, u8::MAX);
            self.observe().await?;
            let wanted = self.facts.wanted();
            let unsettled = self.facts.unsettled();
            if wanted.is_empty() && (!saved || unsettled.is_empty()) && self.facts.stale.is_none() {
                return Ok(());
            }
            // Who loses its lease or its heartbeat to a busy machine begins again: that is slow, but no stall.
            let since = self.lost_at.unwrap_or_default().max(began);
            let (stood, waited) = (self.now().saturating_sub(since), self.now().saturating_sub(began));
            if stood > self.time.patience || waited > self.time.patience * SLOWER_MAX {
                let seen = &self.facts.seen;
                return Err(format!(
                    "G1: a stall: {wanted:?} not handled, {unsettled:?} not settled, at {seen:?}; for {stood:?} nobody lost \
                     what keeps it alive, of {waited:?}"
                ));
            }
            self.sleep(POLL).await;
        }
    }
}

fn fenced<T: std::fmt::Debug>(what: &str, result: Result<T>) -> Verdict {
    match result {
        Err(error) if error.kind() == ErrorKind::Fenced => Ok(()),
        other => Err(format!("G4: a stale {what} was not fenced: {other:?}")),
    }
}
