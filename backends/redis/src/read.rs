//! Reads: by a connection of their own, or by one that many share.

use std::{collections::HashMap, time::Duration};

use highwater::{
    Delivery, Entry, EntryId, Result, Subscription,
    backend::{PendingEntry, Read, ReadGroup, ReadPending},
};

use crate::{
    backend::{BLOCK_MAX_UNWOKEN, Redis, at_least_one},
    client::{Driver, Fault, Value, Way},
    commands,
    error::{reading, writing},
    reply,
};

impl<D: Driver> Redis<D> {
    pub(crate) async fn read_entries(&self, request: &Read) -> Result<Vec<Entry>> {
        at_least_one(request.limit)?;
        if request.after == EntryId::MAX {
            return Ok(Vec::new());
        }
        let block = commands::blocks(request.block, commands::BLOCK_MAX);
        let way = self.link.way(&request.stream);
        if let (Way::Lane(_), Some(wait)) = (&way, block)
            && let Some(waiter) = self.link.waiter(&request.stream, None)
        {
            let read = || self.read_once(request, &way, None);
            return waiter.read(request.after, wait, read, |entry| entry.id).await;
        }
        self.read_once(request, &way, block).await
    }

    pub(crate) async fn read_deliveries(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        at_least_one(request.limit)?;
        let Subscription { stream, group } = &request.subscription;
        let block = commands::blocks(request.block, self.group_block_max);
        let way = self.link.way((&request.subscription, &request.consumer));
        if let (Way::Lane(_), Some(wait)) = (&way, block)
            && let Some(waiter) = self.link.waiter(stream, Some(group))
        {
            // Nothing wakes it when its stream goes.
            let wait = wait.min(BLOCK_MAX_UNWOKEN);
            let read = || self.read_group_once(request, &way, None);
            return waiter.read(EntryId::ZERO, wait, read, Delivery::id).await;
        }
        let deliveries = self.read_group_once(request, &way, block).await?;
        if !deliveries.is_empty() || block.is_none() || self.wakes_readers() {
            return Ok(deliveries);
        }
        // This server lets a reader wait on when the stream goes: a read that does not block tells.
        self.read_group_once(request, &way, None).await
    }

    pub(crate) async fn read_history(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        at_least_one(request.limit)?;
        if request.after == EntryId::MAX {
            return Ok(Vec::new());
        }
        let commands = vec![commands::xreadgroup_history(request), commands::xpending_of(request)];
        // What a read that was dropped may have taken must be among them.
        let way = self.link.way_behind((&request.subscription, &request.consumer));
        let replies = self.link.read_all(request.subscription.stream.as_str(), &way, commands).await;
        replies.and_then(pending_entries).map_err(writing("read_pending"))
    }

    async fn read_once(&self, request: &Read, way: &Way, block: Option<Duration>) -> Result<Vec<Entry>> {
        let command = commands::xread(request, block);
        let reply = self.link.read(request.stream.as_str(), way, &command, block).await;
        reply.and_then(reply::entries).map_err(reading("read"))
    }

    async fn read_group_once(
        &self,
        request: &ReadGroup,
        way: &Way,
        block: Option<Duration>,
    ) -> Result<Vec<Delivery>> {
        let command = commands::xreadgroup_new(request, block);
        let reply = self.link.read(request.subscription.stream.as_str(), way, &command, block).await;
        reply.and_then(reply::deliveries).map_err(writing("read_group"))
    }
}

pub(crate) fn pending_entries<V: Value>(replies: Vec<Result<V, Fault>>) -> Result<Vec<PendingEntry>, Fault> {
    let mut replies = replies.into_iter();
    let (Some(history), Some(counts)) = (replies.next(), replies.next()) else {
        return Err(Fault::Unreadable("two replies"));
    };
    let entries = reply::history(history?)?;
    let counts: HashMap<EntryId, u64> = reply::delivery_counts(counts?)?.into_iter().collect();
    // Without a count, somebody acked or claimed the entry between the two commands: it is not this consumer's any more.
    let pending = |(id, fields)| Some(PendingEntry::new(id, *counts.get(&id)?, fields));
    Ok(entries.into_iter().filter_map(pending).collect())
}
