//! Conveniences over the two traits: for users, where the traits are for implementers.

use std::future::Future;

use super::{Append, CheckpointBackend, Inspect, NewEntry, Read, StreamBackend, StreamState};
use crate::{Entry, EntryId, Error, ErrorKind, Fields, Result, StreamName, Subscription};

/// What users of a [`StreamBackend`] often want. Every stream backend has it, also behind `Arc<dyn StreamBackend>`.
///
/// ```
/// use highwater::{EntryId, Fields, Memory, StreamName, backend::StreamBackendExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let memory = Memory::new();
/// let orders = StreamName::new("orders")?;
/// let id = memory.append_one(&orders, Fields::from_iter([("customer", "7")])).await?;
/// let entries = memory.entries_after(&orders, EntryId::ZERO, 10).await?;
/// assert_eq!(entries[0].id, id);
/// assert_eq!(memory.state(&orders).await?.unwrap().len, 1);
/// # Ok(()) }
/// ```
pub trait StreamBackendExt: StreamBackend {
    /// Appends one entry and returns its id.
    ///
    /// # Errors
    ///
    /// Those of [`StreamBackend::append`].
    ///
    /// # Cancel safety
    ///
    /// The entry may have been appended.
    fn append_one(
        &self,
        stream: &StreamName,
        fields: Fields,
    ) -> impl Future<Output = Result<EntryId>> + Send {
        let request = Append::new(stream.clone(), vec![NewEntry::new(fields)]);
        async move {
            let appended = self.append(&request).await?.pop();
            appended.unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::Internal,
                    "the backend did not say what became of the entry: please report it",
                )
                .with("backend", self.name()))
            })
        }
    }

    /// The state of a stream; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`StreamBackend::inspect`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    fn state(&self, stream: &StreamName) -> impl Future<Output = Result<Option<StreamState>>> + Send {
        let request = Inspect::stream(stream.clone());
        async move { self.inspect(&request).await }
    }

    /// At most `limit` entries after an id, without waiting and outside of any group.
    ///
    /// # Errors
    ///
    /// Those of [`StreamBackend::read`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    fn entries_after(
        &self,
        stream: &StreamName,
        after: EntryId,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Entry>>> + Send {
        let request = Read::new(stream.clone(), after, limit);
        async move { self.read(&request).await }
    }
}

impl<B: StreamBackend + ?Sized> StreamBackendExt for B {}

/// What users of a [`CheckpointBackend`] often want. Every checkpoint store has it, also behind
/// `Arc<dyn CheckpointBackend>`.
///
/// ```
/// use highwater::{EntryId, Memory, Subscription, backend::CheckpointBackendExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> highwater::Result<()> {
/// let memory = Memory::new();
/// let billing = Subscription::new("orders", "billing")?;
/// assert_eq!(memory.watermark(&billing).await?, None);
/// assert_eq!(memory.oldest_watermark(&billing.stream).await?, None);
/// # Ok(()) }
/// ```
pub trait CheckpointBackendExt: CheckpointBackend {
    /// The watermark of a subscription; `None` if it has no checkpoint.
    ///
    /// # Errors
    ///
    /// Those of [`CheckpointBackend::load`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    fn watermark(&self, subscription: &Subscription) -> impl Future<Output = Result<Option<EntryId>>> + Send {
        async move { Ok(self.load(subscription).await?.map(|checkpoint| checkpoint.position.watermark)) }
    }

    /// The smallest watermark of all checkpoints on a stream: what is above it is still needed by somebody. `None` if the
    /// store knows no checkpoint on it.
    ///
    /// # Errors
    ///
    /// Those of [`CheckpointBackend::list`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it changes nothing.
    fn oldest_watermark(&self, stream: &StreamName) -> impl Future<Output = Result<Option<EntryId>>> + Send {
        async move {
            let checkpoints = self.list(stream).await?;
            Ok(checkpoints.into_iter().map(|(_, checkpoint)| checkpoint.position.watermark).min())
        }
    }
}

impl<B: CheckpointBackend + ?Sized> CheckpointBackendExt for B {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ConsumerName, Epoch, Memory, Position, backend::Advance};

    #[tokio::test]
    async fn conveniences_work_also_through_dyn() {
        let memory = Memory::new();
        let stream: Arc<dyn StreamBackend> = Arc::new(memory.clone());
        let store: Arc<dyn CheckpointBackend> = Arc::new(memory);
        let name = StreamName::new("s").unwrap();
        let fields = || Fields::from_iter([("a", "b")]);
        let ids = [
            stream.append_one(&name, fields()).await.unwrap(),
            stream.append_one(&name, fields()).await.unwrap(),
        ];
        let after: Vec<_> =
            stream.entries_after(&name, ids[0], 10).await.unwrap().iter().map(|e| e.id).collect();
        assert_eq!(after, ids[1..]);
        assert_eq!(stream.state(&name).await.unwrap().unwrap().last_id, ids[1]);
        for (group, id) in ["a", "b"].into_iter().zip(ids) {
            let subscription = Subscription::new("s", group).unwrap();
            let owner = ConsumerName::new("c").unwrap();
            let advance = Advance::new(subscription.clone(), Epoch::default(), Position::at(id), owner);
            store.advance(&advance).await.unwrap();
            assert_eq!(store.watermark(&subscription).await.unwrap(), Some(id));
        }
        assert_eq!(store.oldest_watermark(&name).await.unwrap(), Some(ids[0]));
    }
}
