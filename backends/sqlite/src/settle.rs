//! Ack and advance in one transaction.

use async_trait::async_trait;
use highwater::{
    Result,
    backend::{Advance, AtomicSettle, Settle, Settled},
};

use crate::{
    Sqlite,
    error::Fail,
    pending::ack,
    record::Record,
    transaction::{Operation, Tx},
};

#[async_trait]
impl AtomicSettle for Sqlite {
    async fn settle(&self, request: &Settle) -> Result<Settled> {
        self.db.write(request.clone()).await
    }
}

#[async_trait]
impl Operation for Settle {
    type Out = Settled;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Settled, Fail> {
        // An owner that is fenced acks nothing, and learns of it also where the group is gone.
        let record = Record::load(tx, &self.subscription).await?;
        record.check(self.epoch)?;
        let acked = ack(tx, &self.subscription, &self.ids, self.count).await?;
        let Some(position) = acked.position else { return Ok(Settled::new(acked.acked, None)) };
        let position = record.joined(position);
        let subscription = self.subscription.clone();
        let request = Advance::new(subscription, self.epoch, position.clone(), self.owner.clone());
        record.advance(tx, &request).await?;
        Ok(Settled::new(acked.acked, Some(position)))
    }
}
