//! SQLite as a checkpoint store.

use highwater::Attempts;
use highwater::backend::{LoadAttempts, NoteAttempts};
use std::time::Duration;

use async_trait::async_trait;
use highwater::{
    Checkpoint, ConsumerName, EntryId, Epoch, Error, ErrorKind, GroupName, Position, Result, StreamName,
    Subscription,
    backend::{
        Acquire, Acquired, Advance, Advanced, CheckpointBackend, Grant, Release, Renew, ResetCheckpoint,
    },
    checkpoint::{Parts, RECORD_VERSION, check_version},
    clock::{Timestamp, millis},
};
use sqlx::{FromRow, Row, sqlite::SqliteRow};

use crate::{
    Sqlite,
    codec::{bounded, stored},
    error::Fail,
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
        let _ = request;
        Err(highwater::Error::new(highwater::ErrorKind::Unsupported, "not built yet"))
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        let _ = request;
        Err(highwater::Error::new(highwater::ErrorKind::Unsupported, "not built yet"))
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
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT grp, version, epoch, watermark, ahead, ordinal, incarnation, owner, updated_at, lease_owner, \
             lease_until FROM highwater_checkpoint WHERE stream = ? ORDER BY grp",
        )
        .bind(self.0.as_str())
        .fetch_all(&mut *tx.conn)
        .await?;
        let mut checkpoints = Vec::with_capacity(rows.len());
        for row in rows {
            let record = row.read(&self.0)?;
            let group = GroupName::new(&row.group).map_err(|cause| row.corrupt(&self.0, cause))?;
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
        sqlx::query("DELETE FROM highwater_settled WHERE stream = ? AND grp = ?")
            .bind(self.subscription.stream.as_str())
            .bind(self.subscription.group.as_str())
            .execute(&mut *tx.conn)
            .await?;
        record.epoch = record.epoch.next();
        record.lease = Lease::default();
        record.written =
            Some(Written { position: self.position.clone().unwrap_or_default(), owner: None, at: tx.now });
        record.save(tx, &self.subscription).await?;
        Ok(record.epoch)
    }
}

fn until(tx: &Tx, ttl: Duration) -> u64 {
    tx.now.saturating_add(millis(ttl))
}

/// What is kept for a subscription. The default is that of one that has no record.
#[derive(Debug, Default)]
pub(crate) struct Record {
    stored: bool,
    epoch: Epoch,
    written: Option<Written>,
    lease: Lease,
}

#[derive(Debug)]
struct Written {
    position: Position,
    owner: Option<ConsumerName>,
    at: u64,
}

#[derive(Debug, Default)]
struct Lease {
    owner: Option<ConsumerName>,
    until: u64,
}

impl Record {
    pub(crate) async fn load(tx: &mut Tx<'_>, subscription: &Subscription) -> Result<Self, Fail> {
        let row: Option<Columns> = sqlx::query_as(
            "SELECT grp, version, epoch, watermark, ahead, ordinal, incarnation, owner, updated_at, lease_owner, \
             lease_until FROM highwater_checkpoint WHERE stream = ? AND grp = ?",
        )
        .bind(subscription.stream.as_str())
        .bind(subscription.group.as_str())
        .fetch_optional(&mut *tx.conn)
        .await?;
        Ok(row.map(|row| row.read(&subscription.stream)).transpose()?.unwrap_or_default())
    }

    /// Whether this epoch may advance.
    pub(crate) fn check(&self, epoch: Epoch) -> Result<()> {
        if self.epoch > epoch {
            return Err(Error::fenced(epoch, self.epoch));
        }
        if self.epoch < epoch {
            return Err(Error::invalid(
                "this epoch was never issued, or the record was lost: load the checkpoint again",
            )
            .with("epoch", epoch)
            .with("stored", self.epoch));
        }
        Ok(())
    }

    /// Whether the checkpoint says that an entry is settled.
    pub(crate) fn settles(&self, id: EntryId) -> bool {
        self.written.as_ref().is_some_and(|written| written.position.settles(id))
    }

    /// Moves the record forward to a position, for an epoch that has been checked.
    pub(crate) async fn advance(mut self, tx: &mut Tx<'_>, request: &Advance) -> Result<Advanced, Fail> {
        let merged = match &self.written {
            Some(written) => match request.position.merged_into(&written.position) {
                Some(merged) => merged,
                None => return Ok(Advanced::new(false, written.position.watermark)),
            },
            None => request.position.clone(),
        };
        let watermark = merged.watermark;
        self.written = Some(Written { position: merged, owner: Some(request.owner.clone()), at: tx.now });
        self.save(tx, &request.subscription).await?;
        Ok(Advanced::new(true, watermark))
    }

    async fn save(&self, tx: &mut Tx<'_>, subscription: &Subscription) -> Result<(), Fail> {
        let position = self.written.as_ref().map(|written| &written.position);
        let text = |value: Option<String>| value.unwrap_or_default();
        let (ms, seq) = stored(position.map_or(EntryId::ZERO, |position| position.watermark));
        sqlx::query(
            "INSERT OR REPLACE INTO highwater_checkpoint (stream, grp, version, epoch, watermark, ahead, ordinal, \
             incarnation, owner, updated_at, lease_owner, lease_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?); \
             DELETE FROM highwater_settled WHERE stream = ? AND grp = ? AND (ms, seq) <= (?, ?)",
        )
        .bind(subscription.stream.as_str())
        .bind(subscription.group.as_str())
        .bind(RECORD_VERSION.to_string())
        .bind(self.epoch.to_string())
        .bind(text(position.map(|p| p.watermark.to_string())))
        .bind(text(position.map(|p| p.ahead.encode())))
        .bind(text(position.and_then(|p| p.ordinal).map(|ordinal| ordinal.to_string())))
        .bind(text(position.and_then(|p| p.incarnation.as_ref()).map(|i| i.as_str().to_owned())))
        .bind(text(self.written.as_ref().and_then(|w| w.owner.as_ref()).map(ToString::to_string)))
        .bind(text(self.written.as_ref().map(|written| written.at.to_string())))
        .bind(text(self.lease.owner.as_ref().map(ToString::to_string)))
        .bind(bounded(self.lease.until))
        // What the watermark has passed is known to be settled without it.
        .bind(subscription.stream.as_str())
        .bind(subscription.group.as_str())
        .bind(ms)
        .bind(seq)
        .execute(&mut *tx.conn)
        .await?;
        Ok(())
    }

    fn standing(&self, now: u64) -> Option<&Lease> {
        (now < self.lease.until).then_some(&self.lease)
    }

    /// For what only the newest owner may do. Without a record there is none.
    fn expect(&self, epoch: Epoch) -> Result<()> {
        if self.stored && self.epoch == epoch { Ok(()) } else { Err(Error::fenced(epoch, self.epoch)) }
    }

    fn into_checkpoint(self) -> Option<Checkpoint> {
        let Written { position, owner, at } = self.written?;
        Some(Checkpoint::new(position, self.epoch, owner, Timestamp::from_millis(at)))
    }
}

/// A row, as text.
#[derive(Debug)]
struct Columns {
    group: String,
    text: [String; 8],
    lease_owner: String,
    lease_until: i64,
}

impl<'r> FromRow<'r, SqliteRow> for Columns {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let mut text = <[String; 8]>::default();
        for (i, part) in text.iter_mut().enumerate() {
            *part = row.try_get(i + 1)?;
        }
        Ok(Self { group: row.try_get(0)?, text, lease_owner: row.try_get(9)?, lease_until: row.try_get(10)? })
    }
}

impl Columns {
    fn read(&self, stream: &StreamName) -> Result<Record> {
        self.parse().map_err(|cause| self.corrupt(stream, cause))
    }

    fn parse(&self) -> Result<Record> {
        let [version, epoch, watermark, ahead, ordinal, incarnation, owner, updated_at] =
            self.text.each_ref().map(String::as_str);
        check_version(version)?;
        let lease_owner =
            (!self.lease_owner.is_empty()).then(|| ConsumerName::new(&self.lease_owner)).transpose()?;
        let lease = Lease { owner: lease_owner, until: crate::codec::count(self.lease_until) };
        if watermark.is_empty() {
            if !(ahead.is_empty() && ordinal.is_empty()) {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "the checkpoint has lost its watermark: look at the record, then restore it, or remove it to start anew",
                ));
            }
            // Owned, and never advanced.
            let parts = Parts { watermark: "0-0", epoch, updated_at: "0", ..Parts::default() };
            return Ok(Record {
                stored: true,
                epoch: Checkpoint::from_parts(&parts)?.epoch,
                written: None,
                lease,
            });
        }
        let parts =
            Parts { watermark, ahead, ordinal, incarnation, epoch, owner, updated_at, ..Parts::default() };
        let Checkpoint { position, epoch, owner, updated_at, .. } = Checkpoint::from_parts(&parts)?;
        let written = Some(Written { position, owner, at: updated_at.as_millis() });
        Ok(Record { stored: true, epoch, written, lease })
    }

    fn corrupt(&self, stream: &StreamName, cause: Error) -> Error {
        let cause = if cause.kind() == ErrorKind::Corrupt {
            cause
        } else {
            Error::new(ErrorKind::Corrupt, "a name in the checkpoint is not valid").with_source(cause)
        };
        cause.with("stream", stream).with("group", self.group.escape_debug())
    }
}
