//! Short forms of the requests about dead letters.

use bytes::Bytes;

use super::support::{Streams, consumer, fields, id};
use crate::{
    DeathReason, EntryId, Fields, Letter, Result, StreamName, Subscription,
    backend::{BuryLetters, DeadKeys, Fate, NewLetter, Read, Redrive, RedriveLetter, Redriven},
    clock::Timestamp,
    dead_letter_stream,
};

/// The letter of an entry, as a consumer writes it.
pub(super) fn letter_of(subscription: &Subscription, id: EntryId, fields: Fields) -> Letter {
    Letter {
        subscription: subscription.clone(),
        id,
        fields,
        reason: DeathReason::Exhausted,
        error: "no such customer".to_owned(),
        attempts: 5,
        crashes: 1,
        deliveries: 6,
        first_at: Timestamp::from_millis(10),
        last_at: Timestamp::from_millis(20),
        consumer: consumer("a"),
        key: None,
    }
}

/// The request to append it.
pub(super) fn new_letter(letter: &Letter) -> NewLetter {
    NewLetter::new(letter.id, letter.to_fields(), letter.fields.len()).with_key(letter.key)
}

/// Fields of any bytes: order, duplicates, empty and non-UTF-8 names and values, and names as a letter has them.
pub(super) fn odd() -> Fields {
    let all: Vec<u8> = (0..=255).collect();
    vec![
        (Bytes::from_static(b"z"), Bytes::from_static(b"first")),
        (Bytes::from_static(b"a"), Bytes::from_static(b"1")),
        (Bytes::from_static(b"a"), Bytes::from_static(b"1")),
        (Bytes::new(), Bytes::new()),
        (Bytes::from_static(b"no value"), Bytes::new()),
        (Bytes::from_static(b"dead.id"), Bytes::from_static(b"mine")),
        (Bytes::from_static(b"\xff\xfe\0\r\n"), Bytes::from(all)),
    ]
    .into()
}

impl Streams {
    /// Where the letters of the subscription lie.
    pub(super) fn graveyard(&self) -> StreamName {
        dead_letter_stream(&self.subscription).expect("the names in the cases are short")
    }

    /// The letter of an entry that [`append_at`](Self::append_at) appended.
    pub(super) fn letter(&self, ms: u64) -> NewLetter {
        new_letter(&letter_of(&self.subscription, id(ms), fields(&ms.to_string())))
    }

    /// The same, under a key.
    pub(super) fn keyed(&self, ms: u64, key: u64) -> NewLetter {
        let letter = letter_of(&self.subscription, id(ms), fields(&ms.to_string()));
        new_letter(&Letter { key: Some(key), ..letter })
    }

    /// Buries what is pending for a consumer.
    pub(super) async fn bury(&self, holder: &str, letters: Vec<NewLetter>) -> Result<Vec<Fate>> {
        let request = self.burial(letters).held_by(Some(consumer(holder)));
        self.backend.dead_letter(&request).await
    }

    /// The request to bury what no group has pending.
    pub(super) fn burial(&self, letters: Vec<NewLetter>) -> BuryLetters {
        BuryLetters::new(self.subscription.clone(), self.graveyard(), letters)
    }

    /// All letters with their own ids, in order.
    pub(super) async fn graves(&self) -> Result<Vec<(EntryId, Letter)>> {
        let entries = self.backend.read(&Read::new(self.graveyard(), EntryId::ZERO, 2000)).await?;
        entries.iter().map(|entry| Ok((entry.id, Letter::from_entry(entry)?))).collect()
    }

    /// The ids of the entries that have letters, in the order of the letters.
    pub(super) async fn buried(&self) -> Result<Vec<EntryId>> {
        Ok(self.graves().await?.into_iter().map(|(_, letter)| letter.id).collect())
    }

    pub(super) async fn dead_keys(&self) -> Result<Vec<(u64, u64)>> {
        self.backend.dead_keys(&DeadKeys::new(self.subscription.clone(), self.graveyard())).await
    }

    pub(super) async fn redrive(&self, letters: Vec<RedriveLetter>) -> Result<Vec<Redriven>> {
        self.backend.redrive(&Redrive::new(self.subscription.clone(), self.graveyard(), letters)).await
    }

    /// Appends `1-0` to `count-0` and delivers them all to `a`.
    pub(super) async fn deliver(&self, count: u64) -> Result<Vec<EntryId>> {
        self.append_at(1..=count).await?;
        self.ensure_at(EntryId::ZERO).await?;
        self.read_group("a", 1000).await
    }
}

/// Takes a letter out, and appends its entry again.
pub(super) fn again(grave: &(EntryId, Letter)) -> RedriveLetter {
    out_of(grave).append(Some(grave.1.fields.clone()))
}

/// Takes a letter out.
pub(super) fn out_of((at, letter): &(EntryId, Letter)) -> RedriveLetter {
    RedriveLetter::new(*at, letter.id, letter.key)
}
