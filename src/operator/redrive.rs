//! Brings dead letters back, or forgets them.

use std::{collections::HashSet, panic::AssertUnwindSafe};

use bytes::Bytes;
use futures_util::FutureExt;

use super::{LetterFilter, Letters, letters::PAGE};
use crate::{
    Delivery, Entry, EntryId, Error, ErrorKind, Fields, Handler, HandlerError, Letter, Result,
    backend::{Redrive, RedriveLetter, Redriven, StreamBackendExt},
    consumer::Verdict,
};

/// The field of an entry that was appended again which holds its original id.
pub const REDRIVEN_ID: &str = "redriven.id";
/// The field of an entry that was appended again which names the stream of dead letters where it was.
pub const REDRIVEN_FROM: &str = "redriven.from";

/// So many keys may fail in one redrive before it ends.
const FAILED_KEYS_MAX: usize = 10_000;

/// What became of dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedriveReport {
    /// Redriven, or forgotten.
    pub done: u64,
    /// Not there any more: somebody else was faster.
    pub gone: u64,
    /// Handled without success. They stay.
    pub failed: u64,
    /// Not tried, since one of their key before them has failed. They stay.
    pub held_back: u64,
    /// What lies among them and cannot be read. It stays: [`Letters::list`] shows it.
    pub unreadable: u64,
}

impl RedriveReport {
    fn count(&mut self, redriven: Vec<Redriven>) {
        for redriven in redriven {
            match redriven {
                Redriven::Gone => self.gone += 1,
                Redriven::Appended(_) | Redriven::Dropped => self.done += 1,
            }
        }
    }
}

impl Letters {
    /// Appends the entries to their stream again, in the order of their letters, and removes the letters: both in one step, so
    /// however often it is repeated, each entry is appended once. Letters that come in meanwhile are not looked at.
    ///
    /// The fields are those of the original, untouched, and behind them [`REDRIVEN_ID`] with the original id and
    /// [`REDRIVEN_FROM`] with the name of the stream of dead letters. Of an entry that is redriven again, they stay those of the
    /// first time.
    ///
    /// They are new entries. Every group of the stream gets them, and they stand behind all that was appended before, also
    /// behind later entries of their own key. Where only this subscription is to see them, or order matters, use
    /// [`redrive_to`](Self::redrive_to).
    ///
    /// # Errors
    ///
    /// Those of the store; [`Invalid`](ErrorKind::Invalid) where the two streams lie so that it cannot be one step.
    ///
    /// # Cancel safety
    ///
    /// It may have taken place for the first letters, each entirely. Repeat it for the others.
    pub async fn redrive(&self, filter: &LetterFilter) -> Result<RedriveReport> {
        self.take(filter, |letter| Some(self.again(letter))).await
    }

    /// Removes the letters. Their entries are settled, and nobody handles them any more.
    ///
    /// # Errors
    ///
    /// Those of the store.
    ///
    /// # Cancel safety
    ///
    /// As [`redrive`](Self::redrive).
    pub async fn forget(&self, filter: &LetterFilter) -> Result<RedriveReport> {
        self.take(filter, |_| None).await
    }

    /// Calls a handler with the entries, one at a time and in the order of their letters. Success removes the letter; a
    /// failure leaves it, and everything of its key behind it. Nothing is appended to the stream.
    ///
    /// The delivery has the original id and fields. At least once: a letter that was handled and could not be removed is handled
    /// again the next time.
    ///
    /// Where consumers park entries, those of a key stay in order: what comes in meanwhile follows into the letters as long as
    /// there is one of its key, and the last one goes when it was handled. That holds for one redrive at a time, and a filter
    /// that leaves out the first letters of a key gives it up.
    ///
    /// # Errors
    ///
    /// Those of the store; [`Handler`](ErrorKind::Handler) if the handler says [`stop`](HandlerError::stop), or fails for more
    /// than 10,000 keys. A single failure is no error: it is in the report, and in the log.
    ///
    /// # Cancel safety
    ///
    /// The handler is dropped at its await; its letter stays. The letters before it are removed.
    pub async fn redrive_to(&self, filter: &LetterFilter, handler: &impl Handler) -> Result<RedriveReport> {
        let mut report = RedriveReport::default();
        let mut failed = HashSet::new();
        let Some(end) = self.end().await? else { return Ok(report) };
        let mut after = EntryId::ZERO;
        // Read one by one, so that a letter which somebody removes meanwhile is not handled.
        while let Some(entry) = self.page(after, end, 1).await?.pop() {
            after = entry.id;
            let Some(letter) = self.read_or_count(&entry, filter, &mut report) else { continue };
            if letter.key.is_some_and(|key| failed.contains(&key)) {
                report.held_back += 1;
                continue;
            }
            match handle(handler, &letter).await {
                Ok(()) => {
                    let letter = RedriveLetter::new(entry.id, letter.id, letter.key);
                    report.count(self.stream.redrive(&self.request(vec![letter])).await?);
                }
                Err(error) if error.verdict() == Verdict::Stop => {
                    let message = "the handler stopped the redrive: its letter and those behind it stay";
                    return Err(Error::new(ErrorKind::Handler, message).with_source(error.into_source()));
                }
                Err(error) => {
                    tracing::warn!(id = %letter.id, letter = %entry.id, %error, "the handler failed with a dead letter");
                    report.failed += 1;
                    failed.extend(letter.key);
                    if failed.len() > FAILED_KEYS_MAX {
                        let message = "the handler fails for too many keys: mend it, and redrive again";
                        return Err(Error::new(ErrorKind::Handler, message).with_source(error.into_source()));
                    }
                }
            }
        }
        Ok(report)
    }

    /// Takes letters out, page by page.
    async fn take(
        &self,
        filter: &LetterFilter,
        append: impl Fn(&Letter) -> Option<Fields>,
    ) -> Result<RedriveReport> {
        let mut report = RedriveReport::default();
        let Some(end) = self.end().await? else { return Ok(report) };
        let mut after = EntryId::ZERO;
        loop {
            let page = self.page(after, end, PAGE).await?;
            let Some(last) = page.last() else { return Ok(report) };
            after = last.id;
            let letters: Vec<_> = page
                .iter()
                .filter_map(|entry| Some((entry.id, self.read_or_count(entry, filter, &mut report)?)))
                .map(|(at, letter)| RedriveLetter::new(at, letter.id, letter.key).append(append(&letter)))
                .collect();
            if !letters.is_empty() {
                report.count(self.stream.redrive(&self.request(letters)).await?);
            }
        }
    }

    /// The last letter that is there now. What is redriven may fail again and come back behind it.
    async fn end(&self) -> Result<Option<EntryId>> {
        Ok(self.stream.state(&self.from).await?.map(|state| state.last_id))
    }

    async fn page(&self, after: EntryId, end: EntryId, limit: usize) -> Result<Vec<Entry>> {
        let mut page = self.stream.entries_after(&self.from, after, limit).await?;
        page.retain(|entry| entry.id <= end);
        Ok(page)
    }

    fn read_or_count(
        &self,
        entry: &Entry,
        filter: &LetterFilter,
        report: &mut RedriveReport,
    ) -> Option<Letter> {
        self.read(entry, filter).unwrap_or_else(|error| {
            tracing::warn!(%error, stream = %self.from, "passed over what is no dead letter");
            report.unreadable += 1;
            None
        })
    }

    fn request(&self, letters: Vec<RedriveLetter>) -> Redrive {
        Redrive::new(self.subscription.clone(), self.from.clone(), letters)
    }

    /// The fields of an entry that is appended again.
    fn again(&self, letter: &Letter) -> Fields {
        let own: Vec<_> = letter.fields.iter().cloned().collect();
        if let [.., (first, _), (second, _)] = &own[..]
            && (&first[..], &second[..]) == (REDRIVEN_ID.as_bytes(), REDRIVEN_FROM.as_bytes())
        {
            return letter.fields.clone();
        }
        let about = [(REDRIVEN_ID, letter.id.to_string()), (REDRIVEN_FROM, self.from.to_string())];
        let about = about.map(|(name, value)| (Bytes::from_static(name.as_bytes()), Bytes::from(value)));
        Fields::from(own.into_iter().chain(about).collect::<Vec<_>>())
    }
}

/// The handler's result; a panic is a failure like another.
async fn handle(handler: &impl Handler, letter: &Letter) -> Result<(), HandlerError> {
    let entry = Entry::new(letter.id, letter.fields.clone());
    let mut delivery = Delivery::new(entry, letter.deliveries.saturating_add(1));
    delivery.attempt = letter.attempts.saturating_add(1);
    // The call is within, for a handler may panic before it returns its future.
    let handling = AssertUnwindSafe(async { handler.handle(delivery).await });
    handling.catch_unwind().await.unwrap_or_else(|_| Err(HandlerError::retry("the handler panicked")))
}
