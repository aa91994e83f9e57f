//! Settles one entry that nobody is to handle.

use super::Operator;
use crate::{
    ConsumerName, EntryId, Epoch, Error, ErrorKind, Position, Result,
    backend::{Ack, Advance, ResetCheckpoint, StreamBackendExt},
    consumer::resume,
    integrity::Finding,
};

/// How many entries are read at once.
const PAGE: usize = 1_000;
/// Who has written a checkpoint over an entry that was skipped.
const OPERATOR: &str = "operator";

/// What is to be settled next.
struct Next {
    id: Option<EntryId>,
    /// How many entries there are from the position up to it.
    passed: u64,
}

impl Operator {
    /// Settles one entry, if it is still the next to be settled, so that consumers go on behind it. In a shared subscription
    /// that is the smallest pending one or, with nothing pending, the next to be delivered.
    ///
    /// Compared with epoch and watermark as they were when it looked, so of many that skip the same entry one does, and the
    /// others are told; a watermark never moves back.
    ///
    /// # Errors
    ///
    /// [`Fenced`](ErrorKind::Fenced) if the entry is not the next one, having been settled or skipped meanwhile for instance: the
    /// error names the one that is. [`Missing`](ErrorKind::Missing) if there is no checkpoint, [`Reset`](ErrorKind::Reset)
    /// if it belongs to another stream, [`Gap`](ErrorKind::Gap) if entries before it left the stream unsettled: seek past them,
    /// or let a consumer tell them; [`Busy`](ErrorKind::Busy) while somebody lives on the subscription, and
    /// [`Invalid`](ErrorKind::Invalid) as of [`pause`](Self::pause).
    ///
    /// # Cancel safety
    ///
    /// It may have taken place. Repeated, it then is [`Fenced`](ErrorKind::Fenced); it never skips another entry.
    pub async fn skip(&self, expected: EntryId, reason: impl Into<String>) -> Result<Epoch> {
        let reason = reason.into();
        loop {
            let status = self.free().await?;
            let Some(stored) = &status.checkpoint else {
                let message = "the subscription has no checkpoint: start a consumer, or seek first";
                return Err(Error::new(ErrorKind::Missing, message).with("subscription", &self.subscription));
            };
            if let Some(finding @ Finding::Reset(_)) = &status.finding {
                return Err((*finding).into());
            }
            let group = status.group();
            let pending = group.and_then(|group| group.first_pending);
            if let Some(first) = pending.filter(|&first| stored.position.settles(first)) {
                // As a consumer would: what the checkpoint has as settled is acked.
                self.ack_settled(first, &stored.position).await?;
                continue;
            }
            // A gap that is passed over in silence would never be told. One that is pending is skipped by its name.
            if let Some(finding) = status.finding.as_ref().filter(|_| pending.is_none()) {
                return Err((*finding).into());
            }
            let (position, _) = resume::with_group(stored.position.clone(), group, status.stream.as_ref());
            let next = self.next(&position, pending).await?;
            if next.id != Some(expected) {
                return Err(not_next(expected, next.id));
            }
            let behind = behind(&position, expected, next.passed);
            // A reset of the position would forget what is settled above it, each entry by itself in a transaction of effects,
            // and what is remembered of attempts. So it takes the epoch alone, and goes on like an owner.
            let take = ResetCheckpoint::pause(self.subscription.clone(), stored.paused)
                .because(reason)?
                .expect(stored.epoch)
                .expect_watermark(stored.position.watermark);
            let epoch = self.checkpoints.reset(&take.force(self.is_forced())).await?;
            let advance =
                Advance::new(self.subscription.clone(), epoch, behind, ConsumerName::new(OPERATOR)?);
            self.checkpoints.advance(&advance).await?;
            if pending.is_some() {
                // Behind the checkpoint: a crash in between leaves it to the next consumer, which acks it unhandled.
                self.ack(vec![expected]).await?;
            }
            return Ok(epoch);
        }
    }

    /// The smallest entry that is not settled.
    async fn next(&self, position: &Position, pending: Option<EntryId>) -> Result<Next> {
        let (mut after, mut passed) = (position.watermark, 0);
        loop {
            let page = self.stream.entries_after(&self.subscription.stream, after, PAGE).await?;
            for entry in &page {
                passed += 1;
                // One that is pending may have left the stream.
                if pending.is_some_and(|pending| entry.id > pending) {
                    return Ok(Next { id: pending, passed });
                }
                if pending.map_or_else(|| !position.settles(entry.id), |pending| entry.id == pending) {
                    return Ok(Next { id: Some(entry.id), passed });
                }
            }
            match page.last() {
                Some(last) => after = last.id,
                None => return Ok(Next { id: pending, passed: passed + 1 }),
            }
        }
    }

    /// Acks what is settled from here on, a page of it.
    async fn ack_settled(&self, first: EntryId, position: &Position) -> Result<()> {
        let page = self.stream.entries_after(&self.subscription.stream, first, PAGE).await?;
        let settled = page.iter().map(|entry| entry.id).filter(|&id| position.settles(id));
        self.ack(std::iter::once(first).chain(settled).collect()).await
    }

    async fn ack(&self, ids: Vec<EntryId>) -> Result<()> {
        self.stream.ack(&Ack::new(self.subscription.clone(), ids)).await.map(drop)
    }
}

/// The position behind the next entry, to which this many lead.
fn behind(position: &Position, next: EntryId, passed: u64) -> Position {
    let behind = position.clone().at_watermark(next);
    // Where no hole is left, it is further on than was counted.
    let ordinal = position.ordinal.filter(|_| behind.watermark == next).map(|ordinal| ordinal + passed);
    behind.with_ordinal(ordinal)
}

fn not_next(expected: EntryId, next: Option<EntryId>) -> Error {
    let message = "the entry is not the next one to be settled, or not any more: look again, and decide anew";
    Error::new(ErrorKind::Fenced, message)
        .with("expected", expected)
        .with("next", next.map_or_else(|| "none".to_owned(), |id| id.to_string()))
}
