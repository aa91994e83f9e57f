//! Groups, what they deliver, and the life of their consumers.

use async_trait::async_trait;
use highwater::{
    ConsumerName, Delivery, EntryId, Error, ErrorKind, Result, Subscription,
    backend::{Beat, EnsureGroup, Heartbeat, Leave, Left, ReadGroup},
    clock::millis,
};

use crate::{
    codec::{self, bounded, count, stored},
    error::{Fail, missing_group},
    stream::{EntryRow, Stream},
    transaction::{Operation, Tx},
};

/// A group as it stands in a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: i64,
    pub(crate) stream: i64,
    pub(crate) last_delivered: EntryId,
    pub(crate) entries_read: Option<i64>,
    pub(crate) incarnation: String,
}

impl Group {
    pub(crate) async fn find(tx: &mut Tx<'_>, subscription: &Subscription) -> Result<Option<Self>, Fail> {
        let row: Option<(i64, i64, i64, i64, Option<i64>, String)> = sqlx::query_as(
            "SELECT g.id, g.stream, g.last_ms, g.last_seq, g.entries_read, s.incarnation \
             FROM highwater_group AS g JOIN highwater_stream AS s ON s.id = g.stream \
             WHERE s.name = ? AND g.name = ?",
        )
        .bind(subscription.stream.as_str())
        .bind(subscription.group.as_str())
        .fetch_optional(&mut *tx.conn)
        .await?;
        Ok(row.map(|(id, stream, ms, seq, entries_read, incarnation)| Self {
            id,
            stream,
            last_delivered: codec::id(ms, seq),
            entries_read,
            incarnation,
        }))
    }

    pub(crate) async fn expect(tx: &mut Tx<'_>, subscription: &Subscription) -> Result<Self, Fail> {
        Ok(Self::find(tx, subscription).await?.ok_or_else(|| missing_group(subscription))?)
    }

    async fn delivered(&self, tx: &mut Tx<'_>, id: EntryId, entries_read: Option<i64>) -> Result<(), Fail> {
        let (ms, seq) = stored(id);
        sqlx::query("UPDATE highwater_group SET last_ms = ?, last_seq = ?, entries_read = ? WHERE id = ?")
            .bind(ms)
            .bind(seq)
            .bind(entries_read)
            .bind(self.id)
            .execute(&mut *tx.conn)
            .await?;
        Ok(())
    }
}

/// A consumer as it stands in a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub(crate) id: i64,
    token: Option<i64>,
    alive_until: Option<i64>,
}

impl Consumer {
    pub(crate) async fn find(
        tx: &mut Tx<'_>,
        group: &Group,
        name: &ConsumerName,
    ) -> Result<Option<Self>, Fail> {
        let row: Option<(i64, Option<i64>, Option<i64>)> = sqlx::query_as(
            "SELECT id, token, alive_until FROM highwater_consumer WHERE grp = ? AND name = ?",
        )
        .bind(group.id)
        .bind(name.as_str())
        .fetch_optional(&mut *tx.conn)
        .await?;
        Ok(row.map(|(id, token, alive_until)| Self { id, token, alive_until }))
    }

    pub(crate) async fn find_or_create(
        tx: &mut Tx<'_>,
        group: &Group,
        name: &ConsumerName,
    ) -> Result<Self, Fail> {
        if let Some(consumer) = Self::find(tx, group, name).await? {
            return Ok(consumer);
        }
        let id = sqlx::query_scalar("INSERT INTO highwater_consumer (grp, name) VALUES (?, ?) RETURNING id")
            .bind(group.id)
            .bind(name.as_str())
            .fetch_one(&mut *tx.conn)
            .await?;
        Ok(Self { id, token: None, alive_until: None })
    }

    async fn alive(&self, tx: &mut Tx<'_>, token: i64, until: i64) -> Result<(), Fail> {
        sqlx::query("UPDATE highwater_consumer SET token = ?, alive_until = ? WHERE id = ?")
            .bind(token)
            .bind(until)
            .bind(self.id)
            .execute(&mut *tx.conn)
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Operation for EnsureGroup {
    type Out = bool;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Fail> {
        let stream = Stream::find_or_create(tx, &self.subscription.stream).await?;
        let group = Group::find(tx, &self.subscription).await?;
        if group.as_ref().is_some_and(|group| group.last_delivered > self.at) {
            return Ok(false);
        }
        // Beyond the end nobody knows what will be added up to there.
        let known = match stream.ordinal(tx, self.at).await? {
            (least, most) if least == most && self.at <= stream.last => Some(least),
            _ => self.ordinal.map(bounded),
        };
        if let Some(group) = group {
            let unchanged = if group.last_delivered == self.at { group.entries_read } else { None };
            group.delivered(tx, self.at, unchanged.or(known)).await?;
            return Ok(false);
        }
        let (ms, seq) = stored(self.at);
        sqlx::query(
            "INSERT INTO highwater_group (stream, name, last_ms, last_seq, entries_read) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(stream.id)
        .bind(self.subscription.group.as_str())
        .bind(ms)
        .bind(seq)
        .bind(known)
        .execute(&mut *tx.conn)
        .await?;
        Ok(true)
    }
}

/// Looks whether a group has anything to deliver.
pub(crate) struct Peek(pub(crate) Subscription);

/// What [`Peek`] saw.
pub(crate) struct Peeked {
    /// Tells the group from a later one of the same name.
    pub(crate) group: i64,
    pub(crate) available: bool,
}

#[async_trait]
impl Operation for Peek {
    type Out = Peeked;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Peeked, Fail> {
        // The last entry that is there, which need not be the last that was added.
        let row: Option<(i64, bool)> = sqlx::query_as(
            "SELECT g.id, EXISTS (SELECT 1 FROM (SELECT ms, seq FROM highwater_entry WHERE stream = g.stream \
             ORDER BY ms DESC, seq DESC LIMIT 1) AS e WHERE (e.ms, e.seq) > (g.last_ms, g.last_seq)) \
             FROM highwater_group AS g JOIN highwater_stream AS s ON s.id = g.stream \
             WHERE s.name = ? AND g.name = ?",
        )
        .bind(self.0.stream.as_str())
        .bind(self.0.group.as_str())
        .fetch_optional(&mut *tx.conn)
        .await?;
        let (group, available) = row.ok_or_else(|| missing_group(&self.0))?;
        Ok(Peeked { group, available })
    }
}

#[async_trait]
impl Operation for ReadGroup {
    type Out = Vec<Delivery>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<Delivery>, Fail> {
        let group = Group::expect(tx, &self.subscription).await?;
        let (ms, seq) = stored(group.last_delivered);
        let rows: Vec<EntryRow> = sqlx::query_as(
            "SELECT ms, seq, fields FROM highwater_entry WHERE stream = ? AND (ms, seq) > (?, ?) \
             ORDER BY ms, seq LIMIT ?",
        )
        .bind(group.stream)
        .bind(ms)
        .bind(seq)
        .bind(bounded(self.limit as u64))
        .fetch_all(&mut *tx.conn)
        .await?;
        let deliveries =
            rows.into_iter().map(|row| Ok(Delivery::new(row.entry()?, 1))).collect::<Result<Vec<_>>>()?;
        let Some(last) = deliveries.last().map(Delivery::id) else { return Ok(deliveries) };
        let consumer = Consumer::find_or_create(tx, &group, &self.consumer).await?;
        let (last_ms, last_seq) = stored(last);
        sqlx::query(
            "INSERT INTO highwater_pending (grp, ms, seq, ordinal, consumer, delivered_at, deliveries) \
             SELECT ?, ms, seq, ordinal, ?, ?, 1 FROM highwater_entry \
             WHERE stream = ? AND (ms, seq) > (?, ?) AND (ms, seq) <= (?, ?) ORDER BY ms, seq",
        )
        .bind(group.id)
        .bind(consumer.id)
        .bind(bounded(tx.now))
        .bind(group.stream)
        .bind(ms)
        .bind(seq)
        .bind(last_ms)
        .bind(last_seq)
        .execute(&mut *tx.conn)
        .await?;
        let entries_read =
            sqlx::query_scalar("SELECT ordinal FROM highwater_entry WHERE stream = ? AND (ms, seq) = (?, ?)")
                .bind(group.stream)
                .bind(last_ms)
                .bind(last_seq)
                .fetch_one(&mut *tx.conn)
                .await?;
        group.delivered(tx, last, Some(entries_read)).await?;
        Ok(deliveries)
    }
}

#[async_trait]
impl Operation for Heartbeat {
    type Out = Beat;
    const FIRST: bool = true;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Beat, Fail> {
        let group = Group::expect(tx, &self.subscription).await?;
        let token = self.token.0.cast_signed();
        let consumer = Consumer::find_or_create(tx, &group, &self.consumer).await?;
        let beat = match consumer.alive_until {
            Some(until) if until > bounded(tx.now) => {
                if consumer.token != Some(token) {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        "another live process uses this consumer name: use another name, or wait until it is gone",
                    )
                    .with("consumer", &self.consumer)
                    .into());
                }
                Beat::Unbroken
            }
            _ => Beat::Fresh,
        };
        let until = bounded(tx.now.saturating_add(millis(self.ttl)));
        consumer.alive(tx, token, until).await?;
        Ok(beat)
    }
}

#[async_trait]
impl Operation for Leave {
    type Out = Left;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Left, Fail> {
        let Some(group) = Group::find(tx, &self.subscription).await? else { return Ok(Left::new(0)) };
        let Some(consumer) = Consumer::find(tx, &group, &self.consumer).await? else {
            return Ok(Left::new(0));
        };
        let pending: i64 =
            sqlx::query_scalar("SELECT count(*) FROM highwater_pending WHERE grp = ? AND consumer = ?")
                .bind(group.id)
                .bind(consumer.id)
                .fetch_one(&mut *tx.conn)
                .await?;
        let token = self.token.0.cast_signed();
        let taken = consumer.token.is_some_and(|stored| stored != token);
        if !taken && pending == 0 {
            sqlx::query("DELETE FROM highwater_consumer WHERE id = ?")
                .bind(consumer.id)
                .execute(&mut *tx.conn)
                .await?;
        } else if !taken {
            // A heartbeat that has ended, and not none: what is pending may then be claimed at once.
            consumer.alive(tx, token, 0).await?;
        }
        Ok(Left::new(count(pending)))
    }
}

/// Removes a group with its pending list and its consumers. Returns how many there were.
pub(crate) async fn remove(tx: &mut Tx<'_>, subscription: &Subscription) -> Result<u64, Fail> {
    let Some(group) = Group::find(tx, subscription).await? else { return Ok(0) };
    for statement in [
        "DELETE FROM highwater_pending WHERE grp = ?",
        "DELETE FROM highwater_consumer WHERE grp = ?",
        "DELETE FROM highwater_group WHERE id = ?",
    ] {
        sqlx::query(statement).bind(group.id).execute(&mut *tx.conn).await?;
    }
    sqlx::query("UPDATE highwater_stream SET removals = removals + 1 WHERE id = ?")
        .bind(group.stream)
        .execute(&mut *tx.conn)
        .await?;
    tx.touch(&subscription.stream);
    Ok(1)
}

/// Removes all groups of a stream.
pub(crate) async fn remove_all(tx: &mut Tx<'_>, stream: i64) -> Result<(), Fail> {
    for statement in [
        "DELETE FROM highwater_pending WHERE grp IN (SELECT id FROM highwater_group WHERE stream = ?)",
        "DELETE FROM highwater_consumer WHERE grp IN (SELECT id FROM highwater_group WHERE stream = ?)",
        "DELETE FROM highwater_group WHERE stream = ?",
    ] {
        sqlx::query(statement).bind(stream).execute(&mut *tx.conn).await?;
    }
    Ok(())
}
