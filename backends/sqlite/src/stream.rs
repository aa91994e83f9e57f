//! SQLite as a stream store: the trait, and what concerns streams alone.

use async_trait::async_trait;
use bytes::Bytes;
use highwater::{
    Delivery, Entry, EntryId, Incarnation, Result, StreamName,
    backend::{
        Ack, Acked, Append, Beat, BuryLetters, Claim, Claimed, DeadKeys, EnsureGroup, Fate, GroupState,
        Heartbeat, Inspect, Leave, Left, PendingEntry, Read, ReadGroup, ReadPending, Redrive, Redriven,
        Removal, StreamBackend, StreamCapabilities, StreamState, Trim,
    },
};
use sqlx::{FromRow, Row, sqlite::SqliteRow};

use crate::{
    Sqlite,
    codec::{self, bounded, count, decode, stored},
    db::at_least_one,
    error::Fail,
    group::Peek,
    letters,
    transaction::{Operation, Tx},
};

#[async_trait]
impl StreamBackend for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> StreamCapabilities {
        StreamCapabilities::none().with(true, true, true)
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        at_least_one("entries", request.entries.len())?;
        self.db.write(request.clone()).await
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        self.db.write(request.clone()).await
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        self.db.read(request.clone()).await
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        at_least_one("limit", request.limit)?;
        // Before the first look, so that nothing is missed between it and the wait.
        let mut wait = self.db.wait(&request.stream, request.block);
        loop {
            let entries = self.db.read(request.clone()).await?;
            if !entries.is_empty() || !wait.changed().await? {
                return Ok(entries);
            }
        }
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        self.db.write(request.clone()).await
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        at_least_one("limit", request.limit)?;
        let mut wait = self.db.wait(&request.subscription.stream, request.block);
        let mut group = None;
        loop {
            // Without a transaction first: most of those who are woken find that another one was faster.
            let peeked = self.db.read(Peek(request.subscription.clone())).await?;
            if *group.get_or_insert(peeked.group) != peeked.group {
                // The group that this call waited on went, and another one took its name.
                return Err(crate::error::missing_group(&request.subscription));
            }
            if peeked.available {
                let deliveries = self.db.write(request.clone()).await?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
            }
            if !wait.changed().await? {
                return Ok(Vec::new());
            }
        }
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        at_least_one("limit", request.limit)?;
        self.db.write(request.clone()).await
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        at_least_one("limit", request.limit)?;
        self.db.write(request.clone()).await
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        self.db.write(request.clone()).await
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        self.db.write(request.clone()).await
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        self.db.write(request.clone()).await
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        letters::apart(&request.subscription, &request.into)?;
        self.db.write(request.clone()).await
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        self.db.read(request.clone()).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        letters::apart(&request.subscription, &request.from)?;
        self.db.write(request.clone()).await
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        self.db.write(request.clone()).await
    }

    async fn close(&self) {
        self.db.close().await;
    }
}

/// A stream as it stands in a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) id: i64,
    pub(crate) last: EntryId,
    pub(crate) added: i64,
    pub(crate) len: i64,
}

impl Stream {
    pub(crate) async fn find(tx: &mut Tx<'_>, name: &StreamName) -> Result<Option<Self>, Fail> {
        let row: Option<(i64, i64, i64, i64, i64)> =
            sqlx::query_as("SELECT id, last_ms, last_seq, added, len FROM highwater_stream WHERE name = ?")
                .bind(name.as_str())
                .fetch_optional(&mut *tx.conn)
                .await?;
        Ok(row.map(|(id, ms, seq, added, len)| Self { id, last: codec::id(ms, seq), added, len }))
    }

    pub(crate) async fn find_or_create(tx: &mut Tx<'_>, name: &StreamName) -> Result<Self, Fail> {
        if let Some(stream) = Self::find(tx, name).await? {
            return Ok(stream);
        }
        let (ms, seq) = stored(EntryId::ZERO);
        let id = sqlx::query_scalar(
            "INSERT INTO highwater_stream (name, incarnation, last_ms, last_seq, added, len) \
             VALUES (?, lower(hex(randomblob(8))), ?, ?, 0, 0) RETURNING id",
        )
        .bind(name.as_str())
        .bind(ms)
        .bind(seq)
        .fetch_one(&mut *tx.conn)
        .await?;
        Ok(Self { id, last: EntryId::ZERO, added: 0, len: 0 })
    }

    /// How many entries were ever added up to an id: at least and at most. They differ where entries around it are gone.
    pub(crate) async fn ordinal(&self, tx: &mut Tx<'_>, at: EntryId) -> Result<(i64, i64), Fail> {
        if at >= self.last {
            return Ok((self.added, self.added));
        }
        let (ms, seq) = stored(at);
        let before: Option<(i64, i64, i64)> = sqlx::query_as(
            "SELECT ms, seq, ordinal FROM highwater_entry WHERE stream = ? AND (ms, seq) <= (?, ?) \
             ORDER BY ms DESC, seq DESC LIMIT 1",
        )
        .bind(self.id)
        .bind(ms)
        .bind(seq)
        .fetch_optional(&mut *tx.conn)
        .await?;
        let least = match before {
            Some((found_ms, found_seq, ordinal)) if (found_ms, found_seq) == (ms, seq) => {
                return Ok((ordinal, ordinal));
            }
            Some((_, _, ordinal)) => ordinal,
            None => 0,
        };
        let after: Option<i64> = sqlx::query_scalar(
            "SELECT ordinal FROM highwater_entry WHERE stream = ? AND (ms, seq) > (?, ?) ORDER BY ms, seq LIMIT 1",
        )
        .bind(self.id)
        .bind(ms)
        .bind(seq)
        .fetch_optional(&mut *tx.conn)
        .await?;
        // No entry is below 0-0, whatever is gone.
        let most = if at == EntryId::ZERO { 0 } else { after.map_or(self.added, |ordinal| ordinal - 1) };
        Ok((least, most))
    }
}

#[async_trait]
impl Operation for Read {
    type Out = Vec<Entry>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<Entry>, Fail> {
        let (ms, seq) = stored(self.after);
        let rows: Vec<EntryRow> = sqlx::query_as(
            "SELECT ms, seq, fields FROM highwater_entry \
             WHERE stream = (SELECT id FROM highwater_stream WHERE name = ?) AND (ms, seq) > (?, ?) \
             ORDER BY ms, seq LIMIT ?",
        )
        .bind(self.stream.as_str())
        .bind(ms)
        .bind(seq)
        .bind(bounded(self.limit as u64))
        .fetch_all(&mut *tx.conn)
        .await?;
        rows.into_iter().map(EntryRow::entry).map(|entry| Ok(entry?)).collect()
    }
}

/// A row of an id and fields.
pub(crate) struct EntryRow {
    id: EntryId,
    fields: Bytes,
}

impl<'r> FromRow<'r, SqliteRow> for EntryRow {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let fields: &[u8] = row.try_get(2)?;
        Ok(Self { id: codec::id(row.try_get(0)?, row.try_get(1)?), fields: Bytes::copy_from_slice(fields) })
    }
}

impl EntryRow {
    pub(crate) fn entry(self) -> Result<Entry> {
        Ok(Entry::new(self.id, decode(self.fields).map_err(|error| error.with("id", self.id))?))
    }
}

#[async_trait]
impl Operation for Inspect {
    type Out = Option<StreamState>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Fail> {
        // One statement, so that all is of one instant.
        let row = sqlx::query(
            "SELECT s.last_ms, s.last_seq, s.added, s.len, s.incarnation, f.ms, f.seq, g.last_ms, g.last_seq, \
             g.entries_read, (SELECT count(*) FROM highwater_pending WHERE grp = g.id), p.ms, p.seq, \
             CASE WHEN ? THEN (SELECT count(*) FROM highwater_consumer WHERE grp = g.id \
              AND alive_until > CAST(round(unixepoch('subsec') * 1000) AS INTEGER)) END \
             FROM highwater_stream AS s \
             LEFT JOIN highwater_entry AS f ON f.id = \
               (SELECT id FROM highwater_entry WHERE stream = s.id ORDER BY ms, seq LIMIT 1) \
             LEFT JOIN highwater_group AS g ON g.stream = s.id AND g.name = ? \
             LEFT JOIN highwater_pending AS p ON p.grp = g.id AND (p.ms, p.seq) = \
               (SELECT ms, seq FROM highwater_pending WHERE grp = g.id ORDER BY ms, seq LIMIT 1) \
             WHERE s.name = ?",
        )
        .bind(self.count_alive)
        .bind(self.group.as_ref().map(|group| group.as_str()))
        .bind(self.stream.as_str())
        .fetch_optional(&mut *tx.conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let id = |column| -> Result<Option<EntryId>, sqlx::Error> {
            let (ms, seq): (Option<i64>, Option<i64>) = (row.try_get(column)?, row.try_get(column + 1)?);
            Ok(ms.zip(seq).map(|(ms, seq)| codec::id(ms, seq)))
        };
        let mut state = StreamState::new(id(0)?.unwrap_or_default(), count(row.try_get(3)?));
        state.entries_added = Some(count(row.try_get(2)?));
        state.incarnation = Some(Incarnation::new(row.try_get::<String, _>(4)?)?);
        state.first_id = id(5)?;
        if let Some(last_delivered) = id(7)? {
            let mut group = GroupState::new(last_delivered);
            group.entries_read = row.try_get::<Option<i64>, _>(9)?.map(count);
            group.pending = count(row.try_get(10)?);
            group.first_pending = id(11)?;
            group.consumers_alive = row.try_get::<Option<i64>, _>(13)?.map(count);
            state.group = Some(group);
        }
        Ok(Some(state))
    }
}
