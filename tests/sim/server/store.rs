//! The checkpoint side.

use async_trait::async_trait;
use futures_util::future::FutureExt;
use highwater::{
    Attempts, Checkpoint, EntryId, Epoch, GroupName, Position, Result, SettledAhead, StreamName,
    Subscription,
    backend::{
        Acquire, Acquired, Advance, Advanced, Append, AtomicSettle, CheckpointBackend, Committed,
        LoadAttempts, NewEntry, NoteAttempts, Release, Renew, ResetCheckpoint, Settle, Settled, Settlement,
        StreamBackend, StreamBackendExt, TransactionalCheckpoint,
    },
    memory::Tx,
};

use super::{Server, late::unknown};
use crate::mutants::Mutant;

#[async_trait]
impl CheckpointBackend for Server {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        self.audit.lock().loaded(self.who);
        self.store.load(subscription).await
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        self.store.list(stream).await
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        let mut acquired = self.store.acquire(request).await?;
        if let Acquired::Held { remaining, .. } = &acquired
            && self.thinks_it_over(*remaining)
        {
            self.free_lease().await?;
            acquired = self.store.acquire(request).await?;
        }
        self.audit.lock().acquired(self.who, &request.owner, request.ttl, &acquired);
        Ok(acquired)
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        self.sent(request, |server, request| server.renew_now(request).boxed()).await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        self.sent(request, |server, request| server.release_now(request).boxed()).await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        self.sent(request, |server, request| server.advance_now(request).boxed()).await
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        let epoch = self.store.reset(request).await?;
        self.audit.lock().moved(self.who, epoch, request.paused, request.position.as_ref());
        self.look().await?;
        Ok(epoch)
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        let attempts = self.store.attempts(request).await?;
        if request.ids.is_none() {
            self.audit.lock().enters(self.who);
        }
        Ok(attempts)
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        let mut spoilt = request.clone();
        if self.is(Mutant::ForgottenCrashes) {
            spoilt
                .set
                .iter_mut()
                .filter(|noted| noted.id > EntryId::ZERO)
                .for_each(|noted| noted.crashes = 0);
        }
        if self.is(Mutant::KeptCrashes) {
            let known = self.store.attempts(&LoadAttempts::all(request.subscription.clone())).await?;
            for noted in &mut spoilt.set {
                let before = known.iter().find(|known| known.id == noted.id).map_or(0, |known| known.crashes);
                noted.crashes = noted.crashes.max(before);
            }
        }
        self.told(self.store.note_attempts(&spoilt).await)?;
        if self.is(Mutant::RetryAppends) {
            self.append_again(request).await?;
        }
        let mut audit = self.audit.lock();
        audit.wrote(self.who, "noted attempts", request.epoch);
        audit.noted(self.who, request);
        Ok(())
    }

    async fn close(&self) {}
}

#[async_trait]
impl AtomicSettle for Server {
    async fn settle(&self, request: &Settle) -> Result<Settled> {
        self.sent(request, |server, request| server.settle_now(request).boxed()).await
    }
}

#[async_trait]
impl TransactionalCheckpoint for Server {
    type Tx = Tx;

    async fn begin(&self) -> Result<Tx> {
        self.store.begin().await
    }

    async fn settled(&self, tx: &mut Tx, request: &Settlement) -> Result<Vec<EntryId>> {
        if self.is(Mutant::EffectsAlone) {
            return Ok(Vec::new());
        }
        self.store.settled(tx, request).await
    }

    async fn commit(&self, tx: Tx, request: &Settlement) -> Result<Committed> {
        let Some(delay) = self.delay() else { return self.commit_now(tx, request).await };
        let (server, request) = (self.clone(), request.clone());
        tokio::spawn(async move {
            server.clock.sleep(delay).await;
            server.audit.lock().late = true;
            drop(server.commit_now(tx, &request).await);
            server.audit.lock().late = false;
        });
        Err(unknown())
    }
}

impl Server {
    async fn commit_now(&self, tx: Tx, request: &Settlement) -> Result<Committed> {
        let mut spoilt = request.clone();
        if self.is(Mutant::OldEpoch) {
            spoilt.epoch = spoilt.epoch.max(self.issued().await?);
        }
        if self.is(Mutant::EffectsAlone) {
            // In a place of its own, where nothing stands in its way and nobody looks for it.
            let elsewhere = format!("elsewhere-{:x}", highwater::clock::random());
            spoilt.subscription.group = GroupName::new(elsewhere)?;
            (spoilt.epoch, spoilt.position, spoilt.fused) = (Epoch(0), None, false);
            self.store.commit(tx, &spoilt).await?;
            return Ok(Committed::done(None));
        }
        let committed = self.told(self.store.commit(tx, &spoilt).await)?;
        if let Committed::Done { watermark, .. } = &committed {
            let mut audit = self.audit.lock();
            audit.wrote(self.who, "committed", request.epoch);
            if let Some(position) = &request.position {
                let Settlement { subscription, epoch, owner, .. } = request.clone();
                audit.advanced(self.who, &Advance::new(subscription, epoch, position.clone(), owner));
            } else if watermark.is_some() {
                let era = audit.era_of(self.who);
                audit.acked(self.who, era, &request.ids);
            }
        }
        self.look().await?;
        Ok(committed)
    }

    async fn settle_now(&self, request: &Settle) -> Result<Settled> {
        let mut spoilt = request.clone();
        let asked = spoilt.ids.len() as u64;
        if self.is(Mutant::OldEpoch) {
            spoilt.epoch = spoilt.epoch.max(self.issued().await?);
        }
        let swallows = self.swallows();
        if swallows {
            spoilt.ids.clear();
        }
        let settled = self.told(self.store.settle(&spoilt).await)?;
        self.audit.lock().wrote(self.who, "settled", request.epoch);
        if self.is(Mutant::HighestSeen) {
            let (at, owner) = (Position::at(self.seen()), request.owner.clone());
            self.store.advance(&Advance::new(self.subscription.clone(), spoilt.epoch, at, owner)).await?;
        }
        if let Some(position) = &settled.position {
            let mut audit = self.audit.lock();
            audit.acked(self.who, self.era, &spoilt.ids);
            audit.promise(position);
        }
        self.look().await?;
        Ok(if swallows { Settled::new(asked, settled.position) } else { settled })
    }

    async fn advance_now(&self, request: &Advance) -> Result<Advanced> {
        if self.swallows() {
            return Ok(Advanced::new(true, request.position.watermark));
        }
        let mut spoilt = request.clone();
        if self.is(Mutant::OldEpoch) {
            spoilt.epoch = spoilt.epoch.max(self.issued().await?);
        }
        if self.is(Mutant::ForgottenAhead) {
            spoilt.position.ahead = SettledAhead::default();
        }
        if self.is(Mutant::HighestSeen) {
            spoilt.position = Position::at(self.seen());
        }
        if self.is(Mutant::LastWriteWins) {
            self.overwrite(&spoilt).await?;
        }
        let advanced = self.told(self.store.advance(&spoilt).await)?;
        self.audit.lock().advanced(self.who, request);
        self.look().await?;
        Ok(advanced)
    }

    async fn release_now(&self, request: &Release) -> Result<()> {
        if self.is(Mutant::ReleasedByName) {
            self.free_lease().await?;
        } else {
            self.told(self.store.release(request).await)?;
        }
        self.audit.lock().released(self.who, request.epoch);
        Ok(())
    }

    async fn renew_now(&self, request: &Renew) -> Result<()> {
        let renewed = self.told(self.store.renew(request).await);
        if renewed.is_err() && !self.is(Mutant::RenewedByName) {
            return renewed;
        }
        self.audit.lock().renewed(self.who, request.epoch, request.ttl);
        Ok(())
    }

    /// Moves the watermark back where an advance comes that knew less.
    async fn overwrite(&self, advance: &Advance) -> Result<()> {
        let stored = self.store.load(&self.subscription).await?;
        if stored.is_some_and(|stored| stored.position.watermark > advance.position.watermark) {
            let back = ResetCheckpoint::new(self.subscription.clone(), advance.position.clone());
            self.store.reset(&back.force(true)).await?;
            self.look().await?;
        }
        Ok(())
    }

    /// Appends what has failed once more.
    async fn append_again(&self, noted: &NoteAttempts) -> Result<()> {
        for attempts in noted.set.iter().filter(|attempts| attempts.failures > 0) {
            let after = attempts.id.prev().unwrap_or_default();
            let found = self.stream.entries_after(&self.subscription.stream, after, 1).await?;
            let again = found.into_iter().map(|entry| NewEntry::new(entry.fields)).collect::<Vec<_>>();
            if !again.is_empty() {
                self.append(&Append::new(self.subscription.stream.clone(), again)).await?;
            }
        }
        Ok(())
    }

    /// The epoch that stands.
    async fn issued(&self) -> Result<Epoch> {
        Ok(self.store.load(&self.subscription).await?.map_or(Epoch::default(), |checkpoint| checkpoint.epoch))
    }

    /// Ends the lease, whoever holds it.
    async fn free_lease(&self) -> Result<()> {
        let epoch = self.issued().await?;
        // Without a checkpoint there may be nothing to free.
        let _ = self.store.release(&Release::new(self.subscription.clone(), epoch)).await.is_ok();
        Ok(())
    }
}
