//! A row of the checkpoint table.

use highwater::{
    Checkpoint, ConsumerName, EntryId, Epoch, Error, ErrorKind, GroupName, Position, Result, StreamName,
    Subscription,
    backend::{Advance, Advanced},
    checkpoint::{Parts, RECORD_VERSION, check_version},
    clock::Timestamp,
};
use sqlx::{FromRow, Row, sqlite::SqliteRow};

use crate::{
    codec::{self, bounded, stored},
    error::Fail,
    transaction::Tx,
};

/// The most bytes of what is settled ahead that a settle leaves, as many as a consumer does by default.
const AHEAD_BYTES_MAX: usize = 768;

/// What is kept for a subscription. The default is that of one that has no record.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) stored: bool,
    pub(crate) epoch: Epoch,
    pub(crate) written: Option<Written>,
    pub(crate) lease: Lease,
    /// Whether nobody is to consume the subscription, and why.
    pub(crate) paused: bool,
    pub(crate) reason: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) position: Position,
    pub(crate) owner: Option<ConsumerName>,
    pub(crate) at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Lease {
    pub(crate) owner: Option<ConsumerName>,
    pub(crate) until: u64,
}

impl Record {
    pub(crate) async fn load(tx: &mut Tx<'_>, subscription: &Subscription) -> Result<Self, Fail> {
        let row: Option<Columns> = sqlx::query_as(
            "SELECT grp, version, epoch, watermark, ahead, ordinal, incarnation, owner, updated_at, paused, reason, \
             lease_owner, lease_until FROM highwater_checkpoint WHERE stream = ? AND grp = ?",
        )
        .bind(subscription.stream.as_str())
        .bind(subscription.group.as_str())
        .fetch_optional(&mut *tx.conn)
        .await?;
        Ok(row.map(|row| row.read(&subscription.stream)).transpose()?.unwrap_or_default())
    }

    /// The records of a stream, by group.
    pub(crate) async fn load_all(
        tx: &mut Tx<'_>,
        stream: &StreamName,
    ) -> Result<Vec<(GroupName, Self)>, Fail> {
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT grp, version, epoch, watermark, ahead, ordinal, incarnation, owner, updated_at, paused, reason, \
             lease_owner, lease_until FROM highwater_checkpoint WHERE stream = ? ORDER BY grp",
        )
        .bind(stream.as_str())
        .fetch_all(&mut *tx.conn)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let record = row.read(stream)?;
            records.push((GroupName::new(&row.group).map_err(|cause| row.corrupt(stream, cause))?, record));
        }
        Ok(records)
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

    /// Where a group stands, with what is settled ahead besides.
    pub(crate) fn joined(&self, position: Position) -> Position {
        let Some(written) = self.written.as_ref().filter(|written| !written.position.ahead.is_empty()) else {
            return position;
        };
        let joined = position.joined(&written.position);
        let ahead = joined.ahead.clone().truncated(AHEAD_BYTES_MAX);
        joined.with_ahead(ahead)
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

    pub(crate) async fn save(&self, tx: &mut Tx<'_>, subscription: &Subscription) -> Result<(), Fail> {
        let position = self.written.as_ref().map(|written| &written.position);
        let text = |value: Option<String>| value.unwrap_or_default();
        let (ms, seq) = stored(position.map_or(EntryId::ZERO, |position| position.watermark));
        sqlx::query(
            "INSERT OR REPLACE INTO highwater_checkpoint (stream, grp, version, epoch, watermark, ahead, ordinal, \
             incarnation, owner, updated_at, paused, reason, lease_owner, lease_until) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?); \
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
        .bind(if self.paused { "1" } else { "" })
        .bind(text(self.reason.clone()))
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

    pub(crate) fn standing(&self, now: u64) -> Option<&Lease> {
        (now < self.lease.until).then_some(&self.lease)
    }

    /// For what only the newest owner may do. Without a record there is none.
    pub(crate) fn expect(&self, epoch: Epoch) -> Result<()> {
        if self.stored && self.epoch == epoch { Ok(()) } else { Err(Error::fenced(epoch, self.epoch)) }
    }

    pub(crate) fn into_checkpoint(self) -> Option<Checkpoint> {
        let Written { position, owner, at } = self.written?;
        let checkpoint = Checkpoint::new(position, self.epoch, owner, Timestamp::from_millis(at));
        Some(checkpoint.operated(self.paused, self.reason))
    }
}

/// A row, as text.
#[derive(Debug)]
struct Columns {
    group: String,
    text: [String; 10],
    lease_owner: String,
    lease_until: i64,
}

impl<'r> FromRow<'r, SqliteRow> for Columns {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let mut text = <[String; 10]>::default();
        for (i, part) in text.iter_mut().enumerate() {
            *part = row.try_get(i + 1)?;
        }
        Ok(Self {
            group: row.try_get(0)?,
            text,
            lease_owner: row.try_get(11)?,
            lease_until: row.try_get(12)?,
        })
    }
}

impl Columns {
    fn read(&self, stream: &StreamName) -> Result<Record> {
        self.parse().map_err(|cause| self.corrupt(stream, cause))
    }

    fn parse(&self) -> Result<Record> {
        let [version, epoch, watermark, ahead, ordinal, incarnation, owner, updated_at, paused, reason] =
            self.text.each_ref().map(String::as_str);
        check_version(version)?;
        let lease_owner =
            (!self.lease_owner.is_empty()).then(|| ConsumerName::new(&self.lease_owner)).transpose()?;
        let lease = Lease { owner: lease_owner, until: codec::count(self.lease_until) };
        let advanced = !watermark.is_empty();
        let bare = ahead.is_empty() && ordinal.is_empty();
        if !(advanced || bare) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the checkpoint has lost its watermark: look at the record, then restore it, or remove it to start anew",
            ));
        }
        // Without a watermark: owned, and never advanced.
        let or = |text, default| if advanced { text } else { default };
        let (watermark, updated_at) = (or(watermark, "0-0"), or(updated_at, "0"));
        let parts =
            Parts { watermark, ahead, ordinal, incarnation, epoch, owner, updated_at, paused, reason };
        let Checkpoint { position, epoch, owner, updated_at, paused, reason, .. } =
            Checkpoint::from_parts(&parts)?;
        let written = advanced.then(|| Written { position, owner, at: updated_at.as_millis() });
        Ok(Record { stored: true, epoch, written, lease, paused, reason })
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
