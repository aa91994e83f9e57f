//! Memory as a checkpoint store, and both in one step.

use async_trait::async_trait;

use super::{Memory, group, record::Record};
use crate::{
    Attempts, Checkpoint, Epoch, Error, GroupName, Result, StreamName, Subscription,
    backend::{
        Acked, Acquire, Acquired, Advance, Advanced, AtomicSettle, CheckpointBackend, LoadAttempts,
        NoteAttempts, Release, Renew, ResetCheckpoint, Settle, Settled,
    },
};

#[async_trait]
impl CheckpointBackend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        Ok(self.state()?.checkpoints.get(subscription).and_then(Record::checkpoint))
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        let state = self.state()?;
        let on_stream = state.checkpoints.iter().filter(|(subscription, _)| subscription.stream == *stream);
        Ok(on_stream
            .filter_map(|(subscription, record)| Some((subscription.group.clone(), record.checkpoint()?)))
            .collect())
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        let now = self.clock().elapsed();
        let mut state = self.state()?;
        Ok(state.checkpoints.entry(request.subscription.clone()).or_default().acquire(request, now))
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        let now = self.clock().elapsed();
        match self.state()?.checkpoints.get_mut(&request.subscription) {
            Some(record) => record.renew(request, now),
            None => Err(no_record(request.epoch)),
        }
    }

    async fn release(&self, request: &Release) -> Result<()> {
        match self.state()?.checkpoints.get_mut(&request.subscription) {
            Some(record) => record.release(request),
            None => Err(no_record(request.epoch)),
        }
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        let now = self.clock().now();
        let mut state = self.state()?;
        match state.checkpoints.get_mut(&request.subscription) {
            Some(record) => record.advance(request, now),
            None => {
                let mut record = Record::default();
                let advanced = record.advance(request, now)?;
                state.checkpoints.insert(request.subscription.clone(), record);
                Ok(advanced)
            }
        }
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        let now = (self.clock().elapsed(), self.clock().now());
        let mut state = self.state()?;
        match state.checkpoints.get_mut(&request.subscription) {
            Some(record) => record.reset(request, now),
            None => {
                let mut record = Record::default();
                let epoch = record.reset(request, now)?;
                state.checkpoints.insert(request.subscription.clone(), record);
                Ok(epoch)
            }
        }
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        let state = self.state()?;
        Ok(state
            .checkpoints
            .get(&request.subscription)
            .map_or_else(Vec::new, |record| record.attempts(request)))
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        let mut state = self.state()?;
        match state.checkpoints.get_mut(&request.subscription) {
            Some(record) => record.note_attempts(request),
            None => {
                // A record that says nothing but this is no checkpoint.
                let mut record = Record::default();
                record.note_attempts(request)?;
                state.checkpoints.insert(request.subscription.clone(), record);
                Ok(())
            }
        }
    }

    async fn close(&self) {
        self.shut();
    }
}

#[async_trait]
impl AtomicSettle for Memory {
    async fn settle(&self, request: &Settle) -> Result<Settled> {
        let now = self.clock().now();
        let mut state = self.state()?;
        // Before the ack, so that a fenced owner acks nothing.
        match state.checkpoints.get(&request.subscription) {
            Some(record) => record.check(request.epoch)?,
            None => Record::default().check(request.epoch)?,
        }
        let log = state.log_mut(&request.subscription.stream);
        let Acked { acked, position, .. } = log.map_or_else(Acked::default, |log| {
            group::ack(log, &request.subscription.group, &request.ids, request.count)
        });
        let Some(position) = position else { return Ok(Settled::new(acked, None)) };
        let record = state.checkpoints.entry(request.subscription.clone()).or_default();
        let position = record.joined(position);
        let Settle { subscription, epoch, owner, .. } = request.clone();
        record.advance(&Advance::new(subscription, epoch, position.clone(), owner), now)?;
        Ok(Settled::new(acked, Some(position)))
    }
}

fn no_record(epoch: Epoch) -> Error {
    Error::fenced(epoch, Epoch::default())
}
