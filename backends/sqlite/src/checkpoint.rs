//! SQLite as a checkpoint store.

use std::time::Duration;

use async_trait::async_trait;
use highwater::{
    Attempts, Checkpoint, EntryId, Epoch, Error, ErrorKind, GroupName, Position, Result, StreamName,
    Subscription,
    backend::{
        Acquire, Acquired, Advance, Advanced, CheckpointBackend, Grant, LoadAttempts, NoteAttempts, Release,
        Renew, ResetCheckpoint,
    },
    clock::millis,
};

use crate::{
    Sqlite,
    error::Fail,
    record::{Lease, Record, Written},
    transaction::{Operation, Tx},
};

#[async_trait]
impl CheckpointBackend for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        self.db.read(Load(subscription.clone())).await
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        self.db.read(List(stream.clone())).await
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        self.db.write(request.clone()).await
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        self.db.write(request.clone()).await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        self.db.write(request.clone()).await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        self.db.write(request.clone()).await
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        self.db.write(request.clone()).await
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        self.db.read(request.clone()).await
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        self.db.write(request.clone()).await
    }

    async fn close(&self) {
        self.db.close().await;
    }
}

struct Load(Subscription);

#[async_trait]
impl Operation for Load {
    type Out = Option<Checkpoint>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Fail> {
        Ok(Record::load(tx, &self.0).await?.into_checkpoint())
    }
}

struct List(StreamName);

#[async_trait]
impl Operation for List {
    type Out = Vec<(GroupName, Checkpoint)>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Fail> {
        let mut checkpoints = Vec::new();
        for (group, record) in Record::load_all(tx, &self.0).await? {
            checkpoints.extend(record.into_checkpoint().map(|checkpoint| (group, checkpoint)));
        }
        Ok(checkpoints)
    }
}

#[async_trait]
impl Operation for Acquire {
    type Out = Acquired;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Acquired, Fail> {
        let mut record = Record::load(tx, &self.subscription).await?;
        if let Some(lease) = record.standing(tx.now)
            && lease.owner.as_ref() != Some(&self.owner)
        {
            return Ok(Acquired::held(lease.owner.clone(), Duration::from_millis(lease.until - tx.now)));
        }
        record.epoch = record.epoch.next();
        record.lease = Lease { owner: Some(self.owner.clone()), until: until(tx, self.ttl) };
        record.save(tx, &self.subscription).await?;
        Ok(Acquired::Owned(Grant::new(record.epoch, record.written.map(|written| written.position))))
    }
}

#[async_trait]
impl Operation for Renew {
    type Out = ();
    const FIRST: bool = true;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Fail> {
        let mut record = Record::load(tx, &self.subscription).await?;
        record.expect(self.epoch)?;
        record.lease.until = until(tx, self.ttl);
        record.save(tx, &self.subscription).await
    }
}

#[async_trait]
impl Operation for Release {
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Fail> {
        let mut record = Record::load(tx, &self.subscription).await?;
        record.expect(self.epoch)?;
        record.lease.until = 0;
        record.save(tx, &self.subscription).await
    }
}

#[async_trait]
impl Operation for Advance {
    type Out = Advanced;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Advanced, Fail> {
        let record = Record::load(tx, &self.subscription).await?;
        record.check(self.epoch)?;
        record.advance(tx, self).await
    }
}

#[async_trait]
impl Operation for ResetCheckpoint {
    type Out = Epoch;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Epoch, Fail> {
        let mut record = Record::load(tx, &self.subscription).await?;
        if let Some(expected) = self.expected
            && expected != record.epoch
        {
            return Err(Error::fenced(expected, record.epoch).into());
        }
        let written = record.written.as_ref();
        let watermark = written.map_or(EntryId::ZERO, |written| written.position.watermark);
        if let Some(expected) = self.expected_watermark
            && expected != watermark
        {
            return Err(Error::moved(expected, watermark).into());
        }
        if let Some(lease) = record.standing(tx.now)
            && !self.force
        {
            let error = Error::new(
                ErrorKind::Busy,
                "somebody owns the subscription: stop it first, wait until its lease runs out, or use `force`",
            );
            return Err(match &lease.owner {
                Some(owner) => error.with("owner", owner).into(),
                None => error.into(),
            });
        }
        record.epoch = record.epoch.next();
        record.lease = Lease::default();
        record.paused = self.paused.unwrap_or(record.paused);
        record.reason = self.reason().map(str::to_owned);
        if let Some(position) = self.position.clone() {
            forget(tx, &self.subscription).await?;
            record.written = Some(Written { position, owner: None, at: tx.now });
        } else if record.written.is_none() {
            record.written = Some(Written { position: Position::default(), owner: None, at: tx.now });
        }
        record.save(tx, &self.subscription).await?;
        Ok(record.epoch)
    }
}

fn until(tx: &Tx, ttl: Duration) -> u64 {
    tx.now.saturating_add(millis(ttl))
}

/// Drops what belongs to the position that the subscription had.
async fn forget(tx: &mut Tx<'_>, subscription: &Subscription) -> Result<(), Fail> {
    for statement in [
        "DELETE FROM highwater_settled WHERE stream = ? AND grp = ?",
        "DELETE FROM highwater_attempts WHERE stream = ? AND grp = ?",
    ] {
        sqlx::query(statement)
            .bind(subscription.stream.as_str())
            .bind(subscription.group.as_str())
            .execute(&mut *tx.conn)
            .await?;
    }
    Ok(())
}
