//! The stream side.

use async_trait::async_trait;
use futures_util::future::FutureExt;
use highwater::{
    Delivery, Entry, EntryId, Result,
    backend::{
        Ack, Acked, Append, Beat, BuryLetters, Claim, Claimed, DeadKeys, EnsureGroup, Fate, Heartbeat,
        Inspect, Leave, Left, NewEntry, PendingEntry, Read, ReadGroup, ReadPending, Redrive, Redriven,
        Removal, StreamBackend, StreamBackendExt, StreamCapabilities, StreamState, Trim, TrimLimit,
    },
};

use super::{Server, late::unknown};
use crate::mutants::Mutant;

#[async_trait]
impl StreamBackend for Server {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> StreamCapabilities {
        self.stream.capabilities()
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        let appended = self.stream.append(request).await?;
        let mut audit = self.audit.lock();
        for (entry, result) in request.entries.iter().zip(&appended) {
            if let Ok(id) = result {
                audit.appended(entry, *id);
            }
        }
        Ok(appended)
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        if let TrimLimit::Below(limit) = request.limit {
            self.audit.lock().removing(|id| id < limit);
        }
        self.stream.trim(request).await
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        let mut state = self.stream.inspect(request).await?;
        if let Some(state) = &mut state {
            if self.is(Mutant::HiddenTrims) {
                state.len = state.entries_added.unwrap_or(state.len);
            }
            if self.is(Mutant::CountsWhatIsLeft) {
                state.entries_added = Some(state.len);
            }
        }
        Ok(state)
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        let mut request = request.clone();
        if self.is(Mutant::NeverWaits) {
            request.block = None;
        }
        if self.is(Mutant::ReadsAll) {
            request.limit = usize::MAX;
        }
        let entries = self.stream.read(&request).await?;
        self.saw(entries.iter().map(|entry| entry.id));
        Ok(entries)
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        let mut request = request.clone();
        if self.is(Mutant::GroupAtEnd) {
            let state = self.stream.inspect(&Inspect::subscription(&self.subscription)).await?;
            if let Some(state) = state.filter(|state| state.group.is_none()) {
                request.at = state.last_id;
            }
        }
        self.stream.ensure_group(&request).await
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        let mut request = request.clone();
        if self.is(Mutant::NeverWaits) {
            request.block = None;
        }
        if self.is(Mutant::ReadsAll) {
            request.limit = usize::MAX;
        }
        let deliveries = self.stream.read_group(&request).await?;
        self.saw(deliveries.iter().map(Delivery::id));
        self.audit.lock().delivered(self.who, &request.consumer, &deliveries);
        if self.is(Mutant::SettleOnDelivery) && !deliveries.is_empty() {
            let ids = deliveries.iter().map(Delivery::id).collect();
            self.stream.ack(&Ack::new(self.subscription.clone(), ids)).await?;
        }
        Ok(deliveries)
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        let pending = self.stream.read_pending(request).await?;
        self.saw(pending.iter().map(|entry| entry.id));
        Ok(pending)
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        self.end_heartbeats(&request.consumer).await?;
        let mut claimed = self.stream.claim(request).await?;
        if self.is(Mutant::ClaimFromSelf) {
            let all = ReadPending::new(
                self.subscription.clone(),
                request.consumer.clone(),
                EntryId::ZERO,
                request.limit,
            );
            claimed.entries.extend(self.stream.read_pending(&all).await?);
        }
        self.audit.lock().claimed(&request.consumer, &claimed);
        if self.is(Mutant::LostClaims) {
            claimed.entries.clear();
        }
        Ok(claimed)
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        let beat = self.stream.heartbeat(request).await?;
        self.audit.lock().beat(request);
        Ok(beat)
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        self.sent(request, |server, request| server.ack_now(request).boxed()).await
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        let left = self.stream.leave(request).await?;
        self.audit.lock().left(request);
        Ok(left)
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        self.sent(request, |server, request| server.bury_now(request).boxed()).await
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        if self.is(Mutant::ForgottenDeadKeys) {
            return Ok(Vec::new());
        }
        self.stream.dead_keys(request).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        let mut lying = Vec::new();
        for letter in &request.letters {
            let after = letter.letter.prev().unwrap_or_default();
            let found = self.stream.entries_after(&request.from, after, 1).await?.pop();
            lying.push(found.filter(|entry| entry.id == letter.letter));
        }
        let redriven = self.stream.redrive(request).await?;
        for (entry, redriven) in lying.iter().zip(&redriven) {
            self.audit.lock().redriven(entry.as_ref().map(|entry| &entry.fields), *redriven);
        }
        if self.is_for_all(Mutant::RedrivenTwice) {
            // As if the letters had stayed.
            for entry in lying.into_iter().flatten() {
                self.stream
                    .append(&Append::new(request.from.clone(), vec![NewEntry::new(entry.fields)]))
                    .await?;
            }
        }
        Ok(redriven)
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        match request {
            Removal::Entries(_, ids) => self.audit.lock().removing(|id| ids.contains(&id)),
            Removal::Group(_) => self.audit.lock().group_lost(),
            _ => {}
        }
        self.stream.remove(request).await
    }

    async fn close(&self) {}
}

impl Server {
    async fn bury_now(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        if self.is(Mutant::AckBeforeLetter) {
            let ids = request.letters.iter().map(|letter| letter.id).collect();
            self.stream.ack(&Ack::new(self.subscription.clone(), ids)).await?;
            if self.chance().u8(..4) == 0 {
                return Err(unknown());
            }
        }
        let fates = self.stream.dead_letter(request).await?;
        let mut audit = self.audit.lock();
        for (letter, fate) in request.letters.iter().zip(&fates) {
            audit.buried(self.who, self.era, letter, *fate);
        }
        Ok(fates)
    }

    async fn ack_now(&self, request: &Ack) -> Result<Acked> {
        let mut request = request.clone();
        if self.swallows() {
            let asked = std::mem::take(&mut request.ids).len() as u64;
            let acked = self.stream.ack(&request).await?;
            return Ok(Acked::new(asked, acked.position));
        }
        let acked = self.stream.ack(&request).await?;
        if acked.position.is_some() {
            self.audit.lock().acked(self.who, self.era, &request.ids);
        }
        Ok(acked)
    }
}
