//! PostgreSQL as a checkpoint store.

use async_trait::async_trait;
use highwater::{
    Attempts, Checkpoint, EntryId, Epoch, Error, ErrorKind, GroupName, Result, StreamName, Subscription,
    backend::{
        Acquire, Acquired, Advance, Advanced, CheckpointBackend, Grant, LoadAttempts, NoteAttempts, Release,
        Renew, ResetCheckpoint,
    },
};
use sqlx::postgres::PgRow;

use crate::{
    Postgres, attempts, error,
    record::{self, Record},
    sql,
};

/// How often a statement is sent that finds no record and cannot create one. A second time is enough, unless records are
/// removed all the time.
const RACES_MAX: u32 = 8;

#[async_trait]
impl CheckpointBackend for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        let rows = self.lanes().read(subscription, self.sql().load(subscription)).await?;
        match rows.first() {
            Some(row) => Ok(Record::of(row, subscription)?.and_then(Record::into_checkpoint)),
            None => Ok(None),
        }
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        let mut checkpoints = Vec::new();
        for row in self.lanes().read(stream, self.sql().list(stream.as_str())).await? {
            let Some(record) = Record::read(&row, stream)? else { continue };
            let group = GroupName::new(&record.group).map_err(|cause| {
                Error::new(ErrorKind::Corrupt, "a name in the checkpoint is not valid")
                    .with_source(cause)
                    .with("stream", stream)
            })?;
            checkpoints.extend(record.into_checkpoint().map(|checkpoint| (group, checkpoint)));
        }
        Ok(checkpoints)
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        self.write(&request.subscription, &self.sql().acquire(request), |row, record| {
            let issued = record::text(row, sql::ISSUED)?.and_then(|epoch| epoch.parse().ok());
            Ok(match (issued, record) {
                (Some(epoch), record) => {
                    let position = record.as_ref().and_then(Record::position).cloned();
                    Some(Acquired::Owned(Grant::new(Epoch(epoch), position)))
                }
                (None, Some(Record { lease: Some(lease), .. })) => {
                    Some(Acquired::held(lease.owner, lease.remaining))
                }
                (None, _) => None,
            })
        })
        .await
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        let epoch = request.epoch;
        self.write(&request.subscription, &self.sql().renew(request), |_, record| {
            Record::expect(record.as_ref(), epoch).map(Some)
        })
        .await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        let epoch = request.epoch;
        self.write(&request.subscription, &self.sql().release(request), |_, record| {
            Record::expect(record.as_ref(), epoch).map(Some)
        })
        .await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        let (of, epoch) = (&request.subscription, request.epoch);
        let prune = self.pruning().from(of, epoch);
        let forwarded = match prune {
            Some(above) => self.lanes().write(of, self.sql().forward_pruning(request, above)).await?,
            None => self.lanes().write_prepared(of, self.sql().forward(request)).await?,
        };
        if forwarded.len() > 1 {
            if prune.is_some() {
                self.pruning().done(of, epoch, Some(request.position.watermark));
            }
            return Ok(Advanced::new(true, request.position.watermark));
        }
        // As far already, most likely, since another consumer was faster: looking is cheaper than the general statement.
        let rows = self.lanes().read(of, self.sql().load(of)).await?;
        let record = rows.first().map(|row| Record::of(row, of)).transpose()?.flatten();
        if let Some(stored) = record.as_ref().and_then(Record::position) {
            Record::check(record.as_ref(), epoch)?;
            if request.position.merged_into(stored).is_none() {
                return Ok(Advanced::new(false, stored.watermark));
            }
        }
        // The record may be another one than the last time, and what is there from the beginning.
        self.pruning().done(of, epoch, None);
        let statement = self.sql().advance(request, prune.is_some());
        self.write(of, &statement, |row, record| {
            Record::check(record.as_ref(), epoch)?;
            let moved = record::truth(row, sql::MOVED)?;
            match record::id(row, sql::WATERMARK)? {
                Some(watermark) => Ok(Some(Advanced::new(moved, watermark))),
                None if moved => Ok(Some(Advanced::new(true, request.position.watermark))),
                None => Ok(None),
            }
        })
        .await
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        self.write(&request.subscription, &self.sql().reset(request), |row, record| {
            if let Some(issued) = record::text(row, sql::ISSUED)?.and_then(|epoch| epoch.parse().ok()) {
                return Ok(Some(Epoch(issued)));
            }
            let stored = record.as_ref().map_or(Epoch(0), Record::epoch);
            if let Some(expected) = request.expected.filter(|expected| *expected != stored) {
                return Err(Error::fenced(expected, stored));
            }
            let position = record.as_ref().and_then(Record::position);
            let watermark = position.map_or(EntryId::ZERO, |position| position.watermark);
            if let Some(expected) = request.expected_watermark.filter(|&expected| expected != watermark) {
                return Err(Error::moved(expected, watermark));
            }
            let Some(lease) = record.and_then(|record| record.lease) else { return Ok(None) };
            let error = Error::new(
                ErrorKind::Busy,
                "somebody owns the subscription: stop it first, wait until its lease runs out, or use `force`",
            );
            Err(match &lease.owner {
                Some(owner) => error.with("owner", owner),
                None => error,
            })
        })
        .await
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        let rows = self.lanes().read(&request.subscription, self.sql().attempts(request)).await?;
        rows.iter().map(attempts::read).collect()
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        self.write(&request.subscription, &self.sql().note_attempts(request), |row, record| {
            Record::check(record.as_ref(), request.epoch)?;
            Ok((record.is_some() || record::truth(row, attempts::CREATED)?).then_some(()))
        })
        .await
    }

    async fn close(&self) {
        self.shut().await;
    }
}

impl Postgres {
    /// Sends a statement until its answer says what became of it: the first time, unless another one creates the record at
    /// that instant.
    async fn write<T>(
        &self,
        of: &Subscription,
        sql: &str,
        read: impl Fn(&PgRow, Option<Record>) -> Result<Option<T>>,
    ) -> Result<T> {
        for _ in 0..RACES_MAX {
            let row = record::last(self.lanes().write(of, sql.to_owned()).await?)?;
            if let Some(answer) = read(&row, Record::of(&row, of)?)? {
                return Ok(answer);
            }
        }
        Err(error::raced())
    }
}
