//! Attempts that are remembered, beside the checkpoint.

use async_trait::async_trait;
use highwater::{
    Attempts, Result,
    backend::{LoadAttempts, NoteAttempts},
};

use crate::{
    codec::{self, stored},
    error::Fail,
    record::Record,
    transaction::{Operation, Tx},
};

#[async_trait]
impl Operation for LoadAttempts {
    type Out = Vec<Attempts>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Fail> {
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT ms, seq, record FROM highwater_attempts WHERE stream = ?1 AND grp = ?2 \
             AND (?3 IS NULL OR (ms, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?3))) \
             ORDER BY ms, seq",
        )
        .bind(self.subscription.stream.as_str())
        .bind(self.subscription.group.as_str())
        .bind(self.ids.as_deref().map(codec::json))
        .fetch_all(&mut *tx.conn)
        .await?;
        let read = |(ms, seq, record): (_, _, String)| Attempts::decode(codec::id(ms, seq), &record);
        Ok(rows.into_iter().map(read).collect::<Result<_>>()?)
    }
}

#[async_trait]
impl Operation for NoteAttempts {
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Fail> {
        let (stream, group) = (self.subscription.stream.as_str(), self.subscription.group.as_str());
        let record = Record::load(tx, &self.subscription).await?;
        record.check(self.epoch)?;
        if !record.stored {
            record.save(tx, &self.subscription).await?;
        }
        for attempts in &self.set {
            let (ms, seq) = stored(attempts.id);
            sqlx::query(
                "INSERT OR REPLACE INTO highwater_attempts (stream, grp, ms, seq, record) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(stream)
            .bind(group)
            .bind(ms)
            .bind(seq)
            .bind(attempts.encode())
            .execute(&mut *tx.conn)
            .await?;
        }
        if !self.clear.is_empty() {
            sqlx::query(
                "DELETE FROM highwater_attempts WHERE stream = ? AND grp = ? \
                 AND (ms, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
            )
            .bind(stream)
            .bind(group)
            .bind(codec::json(&self.clear))
            .execute(&mut *tx.conn)
            .await?;
        }
        Ok(())
    }
}
