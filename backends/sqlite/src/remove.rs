//! What goes: entries that are trimmed or removed, groups and streams, and what was known of them.

use async_trait::async_trait;
use highwater::{
    EntryId, Error, ErrorKind, Result,
    backend::{Removal, Trim, TrimLimit},
};
use sqlx::AssertSqlSafe;

use crate::{
    codec::{self, bounded, count, stored},
    error::Fail,
    group,
    stream::Stream,
    transaction::{Operation, Tx},
};

#[async_trait]
impl Operation for Trim {
    type Out = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Fail> {
        let Some(mut stream) = Stream::find(tx, &self.stream).await? else { return Ok(0) };
        let below = match self.limit {
            TrimLimit::Below(id) => Some(id),
            TrimLimit::Len(len) if count(stream.len) <= len => return Ok(0),
            TrimLimit::Len(len) => {
                let first_kept: Option<(i64, i64)> = sqlx::query_as(
                    "SELECT ms, seq FROM highwater_entry WHERE stream = ? ORDER BY ms, seq LIMIT 1 OFFSET ?",
                )
                .bind(stream.id)
                .bind(stream.len - bounded(len))
                .fetch_optional(&mut *tx.conn)
                .await?;
                first_kept.map(|(ms, seq)| codec::id(ms, seq))
            }
            _ => return Err(unsupported("limit").into()),
        };
        // `None` is no bound.
        let below = [below, self.keep_from].into_iter().flatten().min();
        stream.remove_below(tx, below).await
    }
}

#[async_trait]
impl Operation for Removal {
    type Out = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Fail> {
        match self {
            Self::Entries(name, ids) => {
                let Some(mut stream) = Stream::find(tx, name).await? else { return Ok(0) };
                stream.remove(tx, ids).await
            }
            Self::Group(subscription) => group::remove(tx, subscription).await,
            Self::Stream(name) => {
                let Some(stream) = Stream::find(tx, name).await? else { return Ok(0) };
                group::remove_all(tx, stream.id).await?;
                for statement in [
                    "DELETE FROM highwater_entry WHERE stream = ?",
                    "DELETE FROM highwater_letter WHERE stream = ?",
                    "DELETE FROM highwater_stream WHERE id = ?",
                ] {
                    sqlx::query(statement).bind(stream.id).execute(&mut *tx.conn).await?;
                }
                tx.touch(name);
                Ok(1)
            }
            _ => Err(unsupported("removal").into()),
        }
    }
}

impl Stream {
    /// Removes entries, and returns how many of them were there.
    pub(crate) async fn remove(&mut self, tx: &mut Tx<'_>, ids: &[EntryId]) -> Result<u64, Fail> {
        let mut removed = 0;
        // The letters that they may be first: what counts is the last.
        for table in ["highwater_letter", "highwater_entry"] {
            let sql = format!(
                "DELETE FROM {table} WHERE stream = ? \
                 AND (ms, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
            );
            let delete = sqlx::query(AssertSqlSafe(sql)).bind(self.id).bind(codec::json(ids));
            removed = delete.execute(&mut *tx.conn).await?.rows_affected();
        }
        self.removed(tx, removed).await
    }

    /// Removes the entries below an id; `None`: all.
    async fn remove_below(&mut self, tx: &mut Tx<'_>, id: Option<EntryId>) -> Result<u64, Fail> {
        let mut removed = 0;
        for table in ["highwater_letter", "highwater_entry"] {
            let bound = if id.is_some() { " AND (ms, seq) < (?, ?)" } else { "" };
            let mut delete =
                sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE stream = ?{bound}")))
                    .bind(self.id);
            if let Some((ms, seq)) = id.map(stored) {
                delete = delete.bind(ms).bind(seq);
            }
            removed = delete.execute(&mut *tx.conn).await?.rows_affected();
        }
        self.removed(tx, removed).await
    }

    async fn removed(&mut self, tx: &mut Tx<'_>, entries: u64) -> Result<u64, Fail> {
        if entries > 0 {
            self.len -= bounded(entries);
            sqlx::query("UPDATE highwater_stream SET len = ? WHERE id = ?")
                .bind(self.len)
                .bind(self.id)
                .execute(&mut *tx.conn)
                .await?;
        }
        Ok(entries)
    }
}

/// For what a later version of the core may ask.
fn unsupported(what: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, "this backend does not know the option: upgrade it")
        .with("option", what)
}
