//! The pending list: reading it again, claiming from it, acking, and what it says about how far a group is settled.

use async_trait::async_trait;
use bytes::Bytes;
use highwater::{
    EntryId, IdRange, Incarnation, Position, Result, SettledAhead, Subscription,
    backend::{Ack, Acked, Claim, Claimed, PendingEntry, ReadPending},
    clock::millis,
};

use crate::{
    codec::{self, bounded, count, decode, stored},
    error::Fail,
    group::{Consumer, Group},
    stream::Stream,
    transaction::{Operation, Tx},
};

/// How many pending entries an ack looks at to tell what is settled above the watermark. More: less is delivered again after
/// the group was lost; fewer: a cheaper ack.
const LOOK_AHEAD: usize = 64;
/// How many runs of pending entries a position lists, which bounds the size of a checkpoint.
const RUNS_MAX: usize = 32;

/// An id, a delivery count, and fields unless the entry is gone.
type PendingRow = (i64, i64, i64, Option<Vec<u8>>);

#[async_trait]
impl Operation for ReadPending {
    type Out = Vec<PendingEntry>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<PendingEntry>, Fail> {
        let group = Group::expect(tx, &self.subscription).await?;
        let Some(consumer) = Consumer::find(tx, &group, &self.consumer).await? else { return Ok(Vec::new()) };
        let (ms, seq) = stored(self.after);
        // By the index that SQLite would not choose by itself: the entries of other consumers may be many.
        let rows: Vec<PendingRow> = sqlx::query_as(
            "SELECT p.ms, p.seq, p.deliveries + (e.id IS NOT NULL), e.fields FROM highwater_pending AS p \
             INDEXED BY highwater_pending_by_consumer \
             LEFT JOIN highwater_entry AS e ON e.stream = ? AND e.ms = p.ms AND e.seq = p.seq \
             WHERE p.grp = ? AND p.consumer = ? AND (p.ms, p.seq) > (?, ?) ORDER BY p.ms, p.seq LIMIT ?",
        )
        .bind(group.stream)
        .bind(group.id)
        .bind(consumer.id)
        .bind(ms)
        .bind(seq)
        .bind(bounded(self.limit as u64))
        .fetch_all(&mut *tx.conn)
        .await?;
        let entries = rows.into_iter().map(pending_entry).collect::<Result<Vec<_>>>()?;
        if let Some(last) = entries.last() {
            let (last_ms, last_seq) = stored(last.id);
            // An entry that is gone is told, not delivered: as on a server, its count stays.
            sqlx::query(
                "UPDATE highwater_pending SET deliveries = deliveries + 1, delivered_at = ? \
                 WHERE grp = ? AND consumer = ? AND (ms, seq) > (?, ?) AND (ms, seq) <= (?, ?) AND EXISTS \
                 (SELECT 1 FROM highwater_entry AS e WHERE e.stream = ? \
                  AND e.ms = highwater_pending.ms AND e.seq = highwater_pending.seq)",
            )
            .bind(bounded(tx.now))
            .bind(group.id)
            .bind(consumer.id)
            .bind(ms)
            .bind(seq)
            .bind(last_ms)
            .bind(last_seq)
            .bind(group.stream)
            .execute(&mut *tx.conn)
            .await?;
        }
        Ok(entries)
    }
}

#[async_trait]
impl Operation for Claim {
    type Out = Claimed;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Claimed, Fail> {
        let group = Group::expect(tx, &self.subscription).await?;
        let suspects: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM highwater_consumer \
             WHERE grp = ? AND name <> ? AND ifnull(alive_until, 0) <= ?)",
        )
        .bind(group.id)
        .bind(self.consumer.as_str())
        .bind(bounded(tx.now))
        .fetch_one(&mut *tx.conn)
        .await?;
        if !suspects {
            // The usual case, and the pending list may be long.
            return Ok(Claimed::default());
        }
        let mut rows = self.candidates(tx, &group).await?;
        let next = rows.get(self.limit).map(|row| codec::id(row.0, row.1));
        rows.truncate(self.limit);
        let entries = rows.into_iter().map(pending_entry).collect::<Result<Vec<_>>>()?;
        if !entries.is_empty() {
            let consumer = Consumer::find_or_create(tx, &group, &self.consumer).await?;
            let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            sqlx::query(
                "UPDATE highwater_pending SET consumer = ?, delivered_at = ?, deliveries = deliveries + 1 \
                 WHERE grp = ? AND (ms, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
            )
            .bind(consumer.id)
            .bind(bounded(tx.now))
            .bind(group.id)
            .bind(codec::json(&ids))
            .execute(&mut *tx.conn)
            .await?;
        }
        // Never one with pending entries: they would be lost.
        sqlx::query(
            "DELETE FROM highwater_consumer WHERE grp = ? AND name <> ? AND ifnull(alive_until, 0) <= ? \
             AND NOT EXISTS (SELECT 1 FROM highwater_pending AS p \
              WHERE p.grp = highwater_consumer.grp AND p.consumer = highwater_consumer.id)",
        )
        .bind(group.id)
        .bind(self.consumer.as_str())
        .bind(bounded(tx.now))
        .execute(&mut *tx.conn)
        .await?;
        Ok(Claimed::new(entries, next))
    }
}

/// What of a group may be claimed, as a method of the request that asks.
trait Candidates {
    async fn candidates(&self, tx: &mut Tx<'_>, group: &Group) -> Result<Vec<PendingRow>, Fail>;
}

impl Candidates for Claim {
    /// One more than is asked for, to know where to go on.
    async fn candidates(&self, tx: &mut Tx<'_>, group: &Group) -> Result<Vec<PendingRow>, Fail> {
        let (ms, seq) = stored(self.from);
        let idle_since = tx.now.checked_sub(millis(self.min_idle)).map_or(-1, bounded);
        Ok(sqlx::query_as(
            "SELECT p.ms, p.seq, p.deliveries + 1, e.fields FROM highwater_pending AS p \
             JOIN highwater_consumer AS c ON c.id = p.consumer \
             LEFT JOIN highwater_entry AS e ON e.stream = ? AND e.ms = p.ms AND e.seq = p.seq \
             WHERE p.grp = ? AND c.name <> ? AND (p.ms, p.seq) >= (?, ?) \
             AND CASE WHEN c.alive_until IS NULL THEN p.delivered_at <= ? ELSE c.alive_until <= ? END \
             ORDER BY p.ms, p.seq LIMIT ?",
        )
        .bind(group.stream)
        .bind(group.id)
        .bind(self.consumer.as_str())
        .bind(ms)
        .bind(seq)
        .bind(idle_since)
        .bind(bounded(tx.now))
        .bind(bounded(self.limit as u64).saturating_add(1))
        .fetch_all(&mut *tx.conn)
        .await?)
    }
}

fn pending_entry((ms, seq, deliveries, fields): PendingRow) -> Result<PendingEntry> {
    let id = codec::id(ms, seq);
    let fields = fields.map(Bytes::from).map(decode).transpose().map_err(|error| error.with("id", id))?;
    Ok(PendingEntry::new(id, count(deliveries), fields))
}

#[async_trait]
impl Operation for Ack {
    type Out = Acked;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Acked, Fail> {
        ack(tx, &self.subscription, &self.ids, self.count).await
    }
}

/// Acks entries in this transaction, and tells where the group then stands.
pub(crate) async fn ack(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    ids: &[EntryId],
    exact: bool,
) -> Result<Acked, Fail> {
    let Some(group) = Group::find(tx, subscription).await? else { return Ok(Acked::new(0, None)) };
    let acked: Vec<(i64, i64, i64)> = if ids.is_empty() {
        Vec::new()
    } else {
        sqlx::query_as(
            "DELETE FROM highwater_pending WHERE grp = ? \
             AND (ms, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?)) RETURNING ms, seq, ordinal",
        )
        .bind(group.id)
        .bind(codec::json(ids))
        .fetch_all(&mut *tx.conn)
        .await?
    };
    let position = match holes(tx, &group).await? {
        Some(holes) => holes.position(group.last_delivered),
        None => match acked.iter().max() {
            Some(&(ms, seq, ordinal)) if !exact => {
                Position::at(codec::id(ms, seq)).with_ordinal(Some(count(ordinal)))
            }
            _ => repeated(tx, subscription, &group, ids, exact).await?,
        },
    };
    let incarnation = Incarnation::new(&group.incarnation)?;
    Ok(Acked::new(acked.len() as u64, Some(position.with_incarnation(Some(incarnation)))))
}

/// The position of a group with nothing pending, after an ack that found nothing either.
async fn repeated(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    group: &Group,
    ids: &[EntryId],
    exact: bool,
) -> Result<Position, Fail> {
    // All that was delivered is acked. Where nobody asked to count, what was asked is proof enough.
    let asked = ids.iter().max().filter(|_| !exact);
    let at = asked.map_or(group.last_delivered, |&id| id.min(group.last_delivered));
    let mut ordinal = if at == group.last_delivered { group.entries_read } else { None };
    if exact
        && ordinal.is_none()
        && let Some(stream) = Stream::find(tx, &subscription.stream).await?
    {
        let (_, most) = stream.ordinal(tx, at).await?;
        // Where entries around the id are gone, all of them count as before it: as far as the group has delivered, none of
        // them is unsettled, so that no loss is hidden by it.
        ordinal = Some(group.entries_read.map_or(most, |read| most.min(read)));
    }
    Ok(Position::at(at).with_ordinal(ordinal.map(count)))
}

/// What is pending: runs of entries, none of which was ever settled in between.
struct Holes {
    runs: Vec<IdRange>,
    /// The ordinal of the first.
    first: i64,
    /// There are more than were looked at: the last run may be longer.
    more: bool,
}

async fn holes(tx: &mut Tx<'_>, group: &Group) -> Result<Option<Holes>, Fail> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT ms, seq, ordinal FROM highwater_pending WHERE grp = ? ORDER BY ms, seq LIMIT ?",
    )
    .bind(group.id)
    .bind(LOOK_AHEAD as i64)
    .fetch_all(&mut *tx.conn)
    .await?;
    let Some(&(.., first)) = rows.first() else { return Ok(None) };
    let more = rows.len() == LOOK_AHEAD;
    let mut runs: Vec<IdRange> = Vec::new();
    let mut before = None;
    for (ms, seq, ordinal) in rows {
        let id = codec::id(ms, seq);
        match runs.last_mut() {
            // Neighbours in the stream: there never was an entry between them.
            Some(run) if before == Some(ordinal - 1) => run.last = id,
            _ => runs.push(IdRange { first: id, last: id }),
        }
        before = Some(ordinal);
    }
    Ok(Some(Holes { runs, first, more }))
}

impl Holes {
    fn position(mut self, last_delivered: EntryId) -> Position {
        let watermark = self.runs.first().and_then(|run| run.first.prev()).unwrap_or_default();
        let mut top = last_delivered;
        // A hole that is not listed must not count as settled, so the set ends before it.
        let listed = RUNS_MAX.min(self.runs.len() - usize::from(self.more));
        if let Some(beyond) = self.runs.get(listed) {
            top = beyond.first.prev().unwrap_or_default();
            self.runs.truncate(listed);
        }
        let ahead = SettledAhead::from_ranges(top, self.runs);
        Position::at(watermark).with_ahead(ahead).with_ordinal(Some(count(self.first - 1)))
    }
}
