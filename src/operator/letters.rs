//! Reads the dead letters of a subscription.

use std::sync::Arc;

use super::LetterFilter;
use crate::{
    Entry, EntryId, Error, Letter, Result, StreamName, Subscription,
    backend::{StreamBackend, StreamBackendExt},
    dead_letter_stream,
};

/// How many letters are read at once.
pub(super) const PAGE: usize = 100;

/// The dead letters of a subscription: looks at them, brings them back, forgets them.
///
/// It holds a page of at most 100 of them at a time.
///
/// ```
/// use highwater::{Delivery, EntryId, HandlerError, LetterFilter, Letters, Memory, Subscription};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// # let memory = Memory::new();
/// let letters = Letters::new(Subscription::new("orders", "billing")?, memory)?;
/// for filed in letters.list(&LetterFilter::default(), EntryId::ZERO, 20).await?.letters {
///     println!("{}: {} after {} attempts: {}", filed.letter.id, filed.letter.reason, filed.letter.attempts, filed.letter.error);
/// }
/// // The service is back: handle them, in order.
/// let again = |delivery: Delivery| async move {
///     println!("{}", delivery.id());
///     Ok::<_, HandlerError>(())
/// };
/// let report = letters.redrive_to(&LetterFilter::default().error("unreachable"), &again).await?;
/// assert_eq!(report.failed, 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Letters {
    pub(super) subscription: Subscription,
    pub(super) stream: Arc<dyn StreamBackend>,
    pub(super) from: StreamName,
}

/// A dead letter, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FiledLetter {
    /// Its id in the stream of the dead letters.
    pub at: EntryId,
    /// The letter.
    pub letter: Letter,
}

/// Some of the dead letters.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LetterPage {
    /// In the order in which they came.
    pub letters: Vec<FiledLetter>,
    /// What lies among them and cannot be read, by its id in the stream of the dead letters. Nothing moves or removes it.
    pub unreadable: Vec<(EntryId, Error)>,
    /// Where to go on; `None` at the end.
    pub next: Option<EntryId>,
}

impl Letters {
    /// Those in [`dead_letter_stream`].
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if the name of that stream would be too long.
    pub fn new(subscription: Subscription, stream: impl StreamBackend) -> Result<Self> {
        let from = dead_letter_stream(&subscription)?;
        Ok(Self { subscription, stream: Arc::new(stream), from })
    }

    /// Those in another stream. It may hold letters of several subscriptions.
    #[must_use]
    pub fn in_stream(mut self, from: StreamName) -> Self {
        self.from = from;
        self
    }

    /// At most `limit` of them, from above an id in the stream of the dead letters on: `0-0`, or [`LetterPage::next`].
    ///
    /// # Errors
    ///
    /// Those of the store. An entry that is no letter is in the page.
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    pub async fn list(&self, filter: &LetterFilter, after: EntryId, limit: usize) -> Result<LetterPage> {
        let mut page = LetterPage { next: Some(after), ..LetterPage::default() };
        while let Some(after) = page.next
            && page.letters.len() + page.unreadable.len() < limit
        {
            let read = self.stream.entries_after(&self.from, after, PAGE).await?;
            page.next = None;
            for entry in read {
                page.next = Some(entry.id);
                match self.read(&entry, filter) {
                    Ok(Some(letter)) => page.letters.push(FiledLetter { at: entry.id, letter }),
                    Ok(None) => continue,
                    Err(error) => page.unreadable.push((entry.id, error)),
                }
                if page.letters.len() + page.unreadable.len() == limit {
                    break;
                }
            }
        }
        Ok(page)
    }

    /// The letter in an entry, if it is one of this subscription to which the filter applies.
    pub(super) fn read(&self, entry: &Entry, filter: &LetterFilter) -> Result<Option<Letter>> {
        let letter = Letter::from_entry(entry)?;
        Ok((letter.subscription == self.subscription && filter.matches(&letter)).then_some(letter))
    }
}
