//! Dead letters: each is an entry of its stream, and a row beside it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use highwater::{
    EntryId, Error, Fields, Result, StreamName, Subscription,
    backend::{Append, BuryLetters, DeadKeys, Fate, NewEntry, NewLetter, Redrive, RedriveLetter, Redriven},
};

use crate::{
    codec::{self, count, decode, stored},
    error::Fail,
    group::Group,
    stream::Stream,
    transaction::{Operation, Tx},
};

/// The letters of a key, by its hash.
type Keys = BTreeMap<u64, u64>;

/// The dead letters of a stream are not in the stream itself.
pub(crate) fn apart(subscription: &Subscription, letters: &StreamName) -> Result<()> {
    if subscription.stream == *letters {
        let message = "the dead letters of a stream cannot be in the stream itself: name another one";
        return Err(Error::invalid(message).with("stream", letters));
    }
    Ok(())
}

#[async_trait]
impl Operation for BuryLetters {
    type Out = Vec<Fate>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<Fate>, Fail> {
        let group = Group::find(tx, &self.subscription).await?;
        let mut burial = Burial { request: self, group, keys: None };
        let mut fates = Vec::with_capacity(self.letters.len());
        for letter in &self.letters {
            fates.push(burial.bury(tx, letter).await?);
        }
        Ok(fates)
    }
}

struct Burial<'r> {
    request: &'r BuryLetters,
    group: Option<Group>,
    /// Counted once, when the first letter asks for it.
    keys: Option<Keys>,
}

impl Burial<'_> {
    async fn bury(&mut self, tx: &mut Tx<'_>, letter: &NewLetter) -> Result<Fate, Fail> {
        if self.lies(tx, letter).await? {
            self.ack(tx, letter.id).await?;
            return Ok(Fate::Buried);
        }
        if !self.is_held(tx, letter.id).await? {
            return Ok(Fate::NotHeld);
        }
        if letter.parked {
            let keys = self.keys(tx).await?;
            if !letter.key.is_some_and(|key| keys.contains_key(&key)) {
                return Ok(Fate::Unparked);
            }
            if keys.values().sum::<u64>() >= self.request.parked_max {
                return Ok(Fate::Full);
            }
        }
        self.append(tx, letter).await?;
        if let (Some(keys), Some(key)) = (&mut self.keys, letter.key) {
            *keys.entry(key).or_default() += 1;
        }
        self.ack(tx, letter.id).await?;
        Ok(Fate::Buried)
    }

    /// Whether there is a letter of this very entry. One of another life of the stream may have had its id.
    async fn lies(&self, tx: &mut Tx<'_>, letter: &NewLetter) -> Result<bool, Fail> {
        let (ms, seq) = stored(letter.id);
        let fields: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT e.fields FROM highwater_letter AS l \
             JOIN highwater_entry AS e ON e.stream = l.stream AND e.ms = l.ms AND e.seq = l.seq \
             WHERE l.stream = (SELECT id FROM highwater_stream WHERE name = ?) AND l.of_stream = ? AND l.of_grp = ? \
             AND l.entry_ms = ? AND l.entry_seq = ?",
        )
        .bind(self.request.into.as_str())
        .bind(self.request.subscription.stream.as_str())
        .bind(self.request.subscription.group.as_str())
        .bind(ms)
        .bind(seq)
        .fetch_optional(&mut *tx.conn)
        .await?;
        let Some(fields) = fields.map(Bytes::from).map(decode).transpose()? else { return Ok(false) };
        let own = |fields: &Fields| fields.iter().take(letter.own).cloned().collect::<Vec<_>>();
        Ok(fields.len() == letter.fields.len() && own(&fields) == own(&letter.fields))
    }

    async fn is_held(&self, tx: &mut Tx<'_>, id: EntryId) -> Result<bool, Fail> {
        let Some(holder) = &self.request.holder else { return Ok(true) };
        let Some(group) = &self.group else { return Ok(false) };
        let (ms, seq) = stored(id);
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM highwater_pending AS p JOIN highwater_consumer AS c ON c.id = p.consumer \
             WHERE p.grp = ? AND p.ms = ? AND p.seq = ? AND c.name = ?)",
        )
        .bind(group.id)
        .bind(ms)
        .bind(seq)
        .bind(holder.as_str())
        .fetch_one(&mut *tx.conn)
        .await?)
    }

    async fn keys(&mut self, tx: &mut Tx<'_>) -> Result<&Keys, Fail> {
        let counted = match self.keys.take() {
            Some(keys) => keys,
            None => {
                let request = DeadKeys::new(self.request.subscription.clone(), self.request.into.clone());
                request.run(tx).await?.into_iter().collect()
            }
        };
        Ok(self.keys.insert(counted))
    }

    async fn append(&self, tx: &mut Tx<'_>, letter: &NewLetter) -> Result<(), Fail> {
        let at = append(tx, &self.request.into, &letter.fields).await?;
        let into = Stream::find_or_create(tx, &self.request.into).await?;
        let ((ms, seq), (entry_ms, entry_seq)) = (stored(at), stored(letter.id));
        let (stream, group) = (&self.request.subscription.stream, &self.request.subscription.group);
        sqlx::query(
            "UPDATE highwater_letter SET entry_ms = NULL, entry_seq = NULL \
             WHERE stream = ?1 AND of_stream = ?4 AND of_grp = ?5 AND entry_ms = ?6 AND entry_seq = ?7; \
             INSERT INTO highwater_letter (stream, ms, seq, of_stream, of_grp, entry_ms, entry_seq, key) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(into.id)
        .bind(ms)
        .bind(seq)
        .bind(stream.as_str())
        .bind(group.as_str())
        .bind(entry_ms)
        .bind(entry_seq)
        .bind(letter.key.map(codec::flipped))
        .execute(&mut *tx.conn)
        .await?;
        Ok(())
    }

    async fn ack(&self, tx: &mut Tx<'_>, id: EntryId) -> Result<(), Fail> {
        let Some(group) = &self.group else { return Ok(()) };
        let (ms, seq) = stored(id);
        sqlx::query("DELETE FROM highwater_pending WHERE grp = ? AND ms = ? AND seq = ?")
            .bind(group.id)
            .bind(ms)
            .bind(seq)
            .execute(&mut *tx.conn)
            .await?;
        Ok(())
    }
}

async fn append(tx: &mut Tx<'_>, stream: &StreamName, fields: &Fields) -> Result<EntryId, Fail> {
    let request = Append::new(stream.clone(), vec![NewEntry::new(fields.clone())]);
    let id = request.run(tx).await?.pop().expect("there is an answer for each entry");
    Ok(id?)
}

#[async_trait]
impl Operation for DeadKeys {
    type Out = Vec<(u64, u64)>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Fail> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT key, count(*) FROM highwater_letter \
             WHERE stream = (SELECT id FROM highwater_stream WHERE name = ?) AND of_stream = ? AND of_grp = ? \
             AND key IS NOT NULL GROUP BY key ORDER BY key",
        )
        .bind(self.from.as_str())
        .bind(self.subscription.stream.as_str())
        .bind(self.subscription.group.as_str())
        .fetch_all(&mut *tx.conn)
        .await?;
        Ok(rows.into_iter().map(|(key, letters)| (codec::unflipped(key), count(letters))).collect())
    }
}

#[async_trait]
impl Operation for Redrive {
    type Out = Vec<Redriven>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<Redriven>, Fail> {
        let mut redriven = Vec::with_capacity(self.letters.len());
        for letter in &self.letters {
            redriven.push(redrive(tx, self, letter).await?);
        }
        Ok(redriven)
    }
}

async fn redrive(tx: &mut Tx<'_>, request: &Redrive, letter: &RedriveLetter) -> Result<Redriven, Fail> {
    let Some(mut from) = Stream::find(tx, &request.from).await? else { return Ok(Redriven::Gone) };
    if from.remove(tx, &[letter.letter]).await? == 0 {
        return Ok(Redriven::Gone);
    }
    Ok(match &letter.append {
        Some(fields) => Redriven::Appended(append(tx, &request.subscription.stream, fields).await?),
        None => Redriven::Dropped,
    })
}
