//! One subscription's checkpoint: position, epoch and lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    Attempts, Checkpoint, ConsumerName, EntryId, Epoch, Error, ErrorKind, Position, Result,
    backend::{
        Acquire, Acquired, Advance, Advanced, Grant, LoadAttempts, NoteAttempts, Release, Renew,
        ResetCheckpoint, Settlement,
    },
    clock::Timestamp,
};

#[derive(Debug, Default)]
pub(super) struct Record {
    epoch: Epoch,
    stored: Option<Stored>,
    lease: Option<Lease>,
    /// Settled above the watermark, each by itself in a transaction.
    settled: BTreeSet<EntryId>,
    attempts: BTreeMap<EntryId, Attempts>,
    paused: bool,
    reason: Option<String>,
}

#[derive(Debug)]
struct Stored {
    position: Position,
    owner: Option<ConsumerName>,
    updated_at: Timestamp,
}

#[derive(Debug)]
struct Lease {
    owner: Option<ConsumerName>,
    until: Duration,
}

impl Record {
    /// The checkpoint under the epoch that stands now, so that whoever loads it may advance it.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        let Stored { position, owner, updated_at } = self.stored.as_ref()?;
        let checkpoint = Checkpoint::new(position.clone(), self.epoch, owner.clone(), *updated_at);
        Some(checkpoint.operated(self.paused, self.reason.clone()))
    }

    pub(super) fn acquire(&mut self, request: &Acquire, now: Duration) -> Acquired {
        if let Some(lease) = self.standing(now)
            && lease.owner.as_ref() != Some(&request.owner)
        {
            return Acquired::held(lease.owner.clone(), lease.until.saturating_sub(now));
        }
        self.epoch = self.epoch.next();
        self.lease =
            Some(Lease { owner: Some(request.owner.clone()), until: now.saturating_add(request.ttl) });
        let position = self.stored.as_ref().map(|stored| stored.position.clone());
        Acquired::Owned(Grant::new(self.epoch, position))
    }

    pub(super) fn renew(&mut self, request: &Renew, now: Duration) -> Result<()> {
        self.expect(request.epoch)?;
        let owner = self.lease.take().and_then(|lease| lease.owner);
        self.lease = Some(Lease { owner, until: now.saturating_add(request.ttl) });
        Ok(())
    }

    pub(super) fn release(&mut self, request: &Release) -> Result<()> {
        self.expect(request.epoch)?;
        if let Some(lease) = &mut self.lease {
            lease.until = Duration::ZERO;
        }
        Ok(())
    }

    /// Whether this epoch may advance: checked apart, so that a fenced settle acks nothing.
    pub(super) fn check(&self, epoch: Epoch) -> Result<()> {
        if self.epoch > epoch {
            return Err(Error::fenced(epoch, self.epoch));
        }
        if self.epoch < epoch {
            return Err(Error::invalid(
                "this epoch was never issued, or the record was lost: load the checkpoint again",
            )
            .with("epoch", epoch)
            .with("stored", self.epoch));
        }
        Ok(())
    }

    /// Where a group stands, with what is settled ahead besides.
    pub(super) fn joined(&self, position: Position) -> Position {
        match &self.stored {
            Some(stored) if !stored.position.ahead.is_empty() => position.joined(&stored.position),
            _ => position,
        }
    }

    pub(super) fn advance(&mut self, request: &Advance, now: Timestamp) -> Result<Advanced> {
        self.check(request.epoch)?;
        let merged = match &self.stored {
            Some(stored) => request.position.merged_into(&stored.position),
            None => Some(request.position.clone()),
        };
        let moved = merged.is_some();
        if let Some(position) = merged {
            self.stored = Some(Stored { position, owner: Some(request.owner.clone()), updated_at: now });
        }
        let watermark = self.stored.as_ref().map_or(request.position.watermark, |s| s.position.watermark);
        // What the watermark has passed is known to be settled without it.
        self.settled = watermark.next().map_or_else(BTreeSet::new, |next| self.settled.split_off(&next));
        Ok(Advanced::new(moved, watermark))
    }

    pub(super) fn reset(&mut self, request: &ResetCheckpoint, now: (Duration, Timestamp)) -> Result<Epoch> {
        if let Some(expected) = request.expected {
            self.expect(expected)?;
        }
        let watermark = self.stored.as_ref().map_or(EntryId::ZERO, |stored| stored.position.watermark);
        if let Some(expected) = request.expected_watermark.filter(|&expected| expected != watermark) {
            return Err(Error::moved(expected, watermark));
        }
        if let Some(lease) = self.standing(now.0)
            && !request.force
        {
            let error = Error::new(
                ErrorKind::Busy,
                "somebody owns the subscription: stop it first, wait until its lease runs out, or use `force`",
            );
            return Err(match &lease.owner {
                Some(owner) => error.with("owner", owner),
                None => error,
            });
        }
        self.epoch = self.epoch.next();
        if let Some(position) = request.position.clone() {
            self.stored = Some(Stored { position, owner: None, updated_at: now.1 });
            self.settled.clear();
            self.attempts.clear();
        } else if self.stored.is_none() {
            self.stored = Some(Stored { position: Position::default(), owner: None, updated_at: now.1 });
        }
        self.paused = request.paused.unwrap_or(self.paused);
        self.reason = request.reason().map(str::to_owned);
        self.lease = None;
        Ok(self.epoch)
    }

    pub(super) fn attempts(&self, request: &LoadAttempts) -> Vec<Attempts> {
        match &request.ids {
            None => self.attempts.values().cloned().collect(),
            Some(ids) => {
                let ids: BTreeSet<_> = ids.iter().collect();
                ids.into_iter().filter_map(|id| self.attempts.get(id)).cloned().collect()
            }
        }
    }

    pub(super) fn note_attempts(&mut self, request: &NoteAttempts) -> Result<()> {
        self.check(request.epoch)?;
        self.attempts.extend(request.set.iter().map(|attempts| (attempts.id, attempts.clone())));
        for id in &request.clear {
            self.attempts.remove(id);
        }
        Ok(())
    }

    /// Which entries of a transaction are settled already.
    pub(super) fn settled(&self, request: &Settlement) -> Vec<EntryId> {
        let position = self.stored.as_ref().map(|stored| &stored.position);
        let is_settled = |id| position.is_some_and(|p| p.settles(id)) || self.settled.contains(&id);
        request.ids.iter().copied().filter(|&id| is_settled(id)).collect()
    }

    /// Settles entries each by itself, for an epoch that has been checked.
    pub(super) fn settle(&mut self, ids: &[EntryId]) {
        self.settled.extend(ids);
    }

    fn standing(&self, now: Duration) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| now < lease.until)
    }

    fn expect(&self, epoch: Epoch) -> Result<()> {
        if self.epoch == epoch { Ok(()) } else { Err(Error::fenced(epoch, self.epoch)) }
    }
}
