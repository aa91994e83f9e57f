//! Stores that are broken on purpose: each is found, and by the property that it breaks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;

use super::{Sequences, Stores, tests::paused};
use crate::{
    Attempts, Checkpoint, Delivery, Entry, EntryId, Epoch, GroupName, Memory, Result, StreamName,
    Subscription, backend::*, conformance::tests::Rows, memory::Tx,
};

/// What a broken store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// Compares ids as text.
    Text,
    /// Stores whatever position comes.
    Unguarded,
    /// Takes an advance of any epoch.
    AnyEpoch,
    /// Acks what it delivers.
    AckFirst,
    /// Writes the letter of an entry that another consumer holds, and acks it.
    Unheld,
    /// Acks, and then writes the letter.
    AckBeforeLetter,
    /// Appends a letter that lies there already.
    LetterTwice,
    /// Appends the entry of a letter again, and keeps the letter.
    KeepsLetter,
    /// Commits an entry that was settled before.
    Twice,
}

/// Memory, but for what a mutant does to it.
#[derive(Debug, Clone)]
struct Broken {
    inner: Memory,
    mutant: Mutant,
    /// The checkpoints as a broken advance has left them.
    stored: Arc<Mutex<BTreeMap<Subscription, Checkpoint>>>,
}

impl Broken {
    fn stores(mutant: Mutant) -> Stores {
        let broken = Self { inner: Memory::new(), mutant, stored: Arc::default() };
        let stores = Stores::two(broken.clone(), broken.clone());
        if mutant == Mutant::Twice { stores.transactional(broken, Rows::default()) } else { stores }
    }

    /// Whether the mutant takes this position.
    fn takes(&self, old: EntryId, new: EntryId) -> bool {
        match self.mutant {
            Mutant::Text => new.to_string() > old.to_string(),
            Mutant::Unguarded => new != old,
            _ => false,
        }
    }
}

#[test]
fn ids_compared_as_text_are_found() {
    // It stands still at 9, or falls to it.
    found(Mutant::Text, &["G1", "G3"]);
}

#[test]
fn an_unguarded_upsert_is_found() {
    found(Mutant::Unguarded, &["G2", "G3"]);
}

#[test]
fn an_advance_of_any_epoch_is_found() {
    found(Mutant::AnyEpoch, &["G4"]);
}

#[test]
fn an_ack_before_the_handler_is_found() {
    found(Mutant::AckFirst, &["G1", "G2"]);
}

#[test]
fn a_commit_without_a_look_for_conflicts_is_found() {
    found(Mutant::Twice, &["G9"]);
}

#[test]
fn a_letter_without_a_look_at_the_holder_is_found() {
    found(Mutant::Unheld, &["G4", "G11"]);
}

#[test]
fn an_ack_before_the_letter_is_found() {
    found(Mutant::AckBeforeLetter, &["G1", "G2"]);
}

#[test]
fn a_letter_that_is_appended_twice_is_found() {
    found(Mutant::LetterTwice, &["G11"]);
}

#[test]
fn a_redrive_that_keeps_the_letter_is_found() {
    found(Mutant::KeepsLetter, &["G11"]);
}

/// Within so many sequences, one of these properties fails. Nearly always the first few hundred are enough; a mutant that only a
/// rare sequence shows must not make this test depend on luck.
fn found(mutant: Mutant, properties: &[&str]) {
    let sequences = Sequences::expected_to_fail(6_000).in_paused_time();
    let failure = sequences.run(&paused(), async || Broken::stores(mutant)).unwrap_err();
    let found = properties.iter().any(|property| failure.starts_with(property));
    assert!(found, "{mutant:?} breaks {properties:?}, and another property failed: {failure}");
}

#[async_trait]
impl CheckpointBackend for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        let inner = self.inner.load(subscription).await?;
        let stored = self.stored.lock().unwrap();
        Ok(inner.map(|inner| {
            let broken = stored.get(subscription).filter(|broken| broken.epoch == inner.epoch);
            broken.cloned().unwrap_or(inner)
        }))
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        self.inner.list(stream).await
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        self.inner.acquire(request).await
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        self.inner.renew(request).await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        self.inner.release(request).await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        let mut request = request.clone();
        let before = self.load(&request.subscription).await?;
        if self.mutant == Mutant::AnyEpoch {
            request.epoch = before.as_ref().map_or(request.epoch, |before| before.epoch);
        }
        let advanced = self.inner.advance(&request).await?;
        if !matches!(self.mutant, Mutant::Text | Mutant::Unguarded) {
            return Ok(advanced);
        }
        let old = before.map(|before| before.position.watermark);
        let moved = old.is_none_or(|old| self.takes(old, request.position.watermark));
        let now = self.inner.load(&request.subscription).await?;
        let mut stored = self.stored.lock().unwrap();
        if let (true, Some(now)) = (moved, now) {
            let broken = Checkpoint { position: request.position.clone(), ..now };
            stored.insert(request.subscription.clone(), broken);
        }
        let watermark = stored.get(&request.subscription).map(|broken| broken.position.watermark);
        Ok(Advanced::new(moved, watermark.unwrap_or_default()))
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        self.inner.reset(request).await
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        self.inner.attempts(request).await
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        self.inner.note_attempts(request).await
    }

    async fn close(&self) {}
}

#[async_trait]
impl TransactionalCheckpoint for Broken {
    type Tx = Tx;

    async fn begin(&self) -> Result<Tx> {
        self.inner.begin().await
    }

    async fn settled(&self, _: &mut Tx, _: &Settlement) -> Result<Vec<EntryId>> {
        Ok(Vec::new())
    }

    async fn commit(&self, tx: Tx, request: &Settlement) -> Result<Committed> {
        // In a place of its own, so that nothing stands in its way.
        let mut elsewhere = request.clone();
        elsewhere.subscription.group = GroupName::new(format!("{:x}", crate::clock::random()))?;
        (elsewhere.epoch, elsewhere.position, elsewhere.fused) = (Epoch(0), None, false);
        self.inner.commit(tx, &elsewhere).await?;
        let Some(position) = request.position.clone() else { return Ok(Committed::done(None)) };
        let Settlement { subscription, epoch, owner, .. } = request.clone();
        let advanced = self.inner.advance(&Advance::new(subscription, epoch, position, owner)).await?;
        Ok(Committed::done(Some(advanced.watermark)))
    }
}

#[async_trait]
impl StreamBackend for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn capabilities(&self) -> StreamCapabilities {
        self.inner.capabilities()
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        self.inner.append(request).await
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        self.inner.trim(request).await
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        self.inner.inspect(request).await
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        self.inner.read(request).await
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        self.inner.ensure_group(request).await
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        let deliveries = self.inner.read_group(request).await?;
        if self.mutant == Mutant::AckFirst && !deliveries.is_empty() {
            let ids = deliveries.iter().map(Delivery::id).collect();
            self.inner.ack(&Ack::new(request.subscription.clone(), ids)).await?;
        }
        Ok(deliveries)
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        self.inner.read_pending(request).await
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        self.inner.claim(request).await
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        self.inner.heartbeat(request).await
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        self.inner.ack(request).await
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        self.inner.leave(request).await
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        let mut request = request.clone();
        match self.mutant {
            Mutant::Unheld => request.holder = None,
            Mutant::AckBeforeLetter => {
                let ids = request.letters.iter().map(|letter| letter.id).collect();
                self.inner.ack(&Ack::new(request.subscription.clone(), ids)).await?;
                crate::clock::Clock::new().sleep(Duration::from_millis(5)).await;
                request.holder = None;
            }
            Mutant::LetterTwice => {
                let fates = self.inner.dead_letter(&request).await?;
                // Where it lay there before, it is not known which of them is new.
                let letters = request.letters.iter().map(|letter| NewEntry::new(letter.fields.clone()));
                let lying = self.inner.read(&Read::new(request.into.clone(), EntryId::ZERO, 1_000)).await?;
                let known = |entry: &NewEntry| lying.iter().any(|lying| lying.fields == entry.fields);
                let again: Vec<_> = letters.filter(|entry| !known(entry)).collect();
                if !again.is_empty() {
                    self.inner.append(&Append::new(request.into.clone(), again)).await?;
                }
                return Ok(fates);
            }
            _ => {}
        }
        self.inner.dead_letter(&request).await
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        self.inner.dead_keys(request).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        if self.mutant != Mutant::KeepsLetter {
            return self.inner.redrive(request).await;
        }
        let mut redriven = Vec::new();
        for letter in &request.letters {
            redriven.push(match letter.append.clone() {
                Some(fields) => {
                    let append =
                        Append::new(request.subscription.stream.clone(), vec![NewEntry::new(fields)]);
                    Redriven::Appended(self.inner.append(&append).await?.remove(0)?)
                }
                None => Redriven::Dropped,
            });
        }
        Ok(redriven)
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        self.inner.remove(request).await
    }

    async fn close(&self) {}
}
