//! Appending: the ids, and many rows in few statements.

use async_trait::async_trait;
use highwater::{
    EntryId, Error, Result,
    backend::{Append, NewEntry},
};
use sqlx::AssertSqlSafe;

use crate::{
    codec::{encode, stored},
    error::Fail,
    stream::Stream,
    transaction::{Operation, Tx},
};

/// Rows of one insert: the largest statements first, so that few are enough for any number. Each is prepared once.
const INSERT_ROWS: [usize; 4] = [256, 32, 4, 1];

#[async_trait]
impl Operation for Append {
    type Out = Vec<Result<EntryId>>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Fail> {
        let absent = Stream { id: 0, last: EntryId::ZERO, added: 0, len: 0 };
        let mut stream = Stream::find(tx, &self.stream).await?.unwrap_or(absent);
        let mut rows = Vec::with_capacity(self.entries.len());
        let mut ids = Vec::with_capacity(self.entries.len());
        for new in &self.entries {
            let id = stream.next_id(new, tx.now);
            if let Ok(id) = id {
                stream.last = id;
                stream.added += 1;
                rows.push((id, stream.added, encode(&new.fields)));
            }
            ids.push(id);
        }
        if rows.is_empty() {
            // A stream that is absent stays so.
            return Ok(ids);
        }
        if stream.id == 0 {
            stream.id = Stream::find_or_create(tx, &self.stream).await?.id;
        }
        stream.len += rows.len() as i64;
        insert(tx, stream.id, rows).await?;
        let (ms, seq) = stored(stream.last);
        sqlx::query("UPDATE highwater_stream SET last_ms = ?, last_seq = ?, added = ?, len = ? WHERE id = ?")
            .bind(ms)
            .bind(seq)
            .bind(stream.added)
            .bind(stream.len)
            .bind(stream.id)
            .execute(&mut *tx.conn)
            .await?;
        tx.touch(&self.stream);
        Ok(ids)
    }
}

async fn insert(tx: &mut Tx<'_>, stream: i64, rows: Vec<(EntryId, i64, Vec<u8>)>) -> Result<(), Fail> {
    let mut rows = rows.into_iter();
    for size in INSERT_ROWS {
        while rows.len() >= size {
            let mut sql =
                "INSERT INTO highwater_entry (stream, ms, seq, ordinal, fields) VALUES (?, ?, ?, ?, ?)"
                    .to_owned();
            sql.push_str(&", (?, ?, ?, ?, ?)".repeat(size - 1));
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (id, ordinal, fields) in rows.by_ref().take(size) {
                let (ms, seq) = stored(id);
                query = query.bind(stream).bind(ms).bind(seq).bind(ordinal).bind(fields);
            }
            query.execute(&mut *tx.conn).await?;
        }
    }
    Ok(())
}

impl Stream {
    /// The id of the next entry.
    fn next_id(&self, new: &NewEntry, now: u64) -> Result<EntryId> {
        if new.fields.is_empty() {
            return Err(Error::invalid("an entry has at least one field"));
        }
        match new.id {
            Some(id) if id > self.last => Ok(id),
            Some(id) => Err(Error::invalid(
                "the id is not above the last one of the stream: use a greater one, or none",
            )
            .with("id", id)
            .with("last", self.last)),
            // A clock that went back must not lead to an id that is not above the last one.
            None if now > self.last.ms => Ok(EntryId::new(now, 0)),
            None => self
                .last
                .next()
                .ok_or_else(|| Error::invalid("the stream has used its last id: go on with a new stream")),
        }
    }
}
