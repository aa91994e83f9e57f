//! The stream store.

use async_trait::async_trait;
use highwater::{
    Delivery, Entry, EntryId, Error, ErrorKind, Position, Result, SettledAhead, Subscription,
    backend::{
        Ack, Acked, Append, Beat, BuryLetters, Claim, Claimed, DeadKeys, EnsureGroup, Fate, GroupState,
        Heartbeat, Inspect, Leave, Left, PendingEntry, Read, ReadGroup, ReadPending, Redrive, Redriven,
        Removal, StreamBackend, StreamCapabilities, StreamState, Trim, TrimLimit,
    },
    clock::millis,
};

use crate::{
    backend::{Redis, at_least_one},
    client::{Arguments, Driver, Fault, Value},
    commands::{self, Push},
    error::{reading, writing},
    keys,
    packed::Packed,
    reply,
    scripts::Script,
};

/// The most bytes that the text of what is settled ahead may have, so that a checkpoint stays below 1 KiB, with
/// the names of its owners and a reason.
pub(crate) const AHEAD_BYTES_MAX: usize = 512;

/// Durations and limits are sums in Lua's doubles on the server; below this they stay exact.
pub(crate) const NUMBER_MAX: u64 = 1 << 51;

/// A step of the trimming script looks at 128 entries; between calls of this many steps others get their turn.
const TRIM_STEPS: u64 = 64;

#[async_trait]
impl<D: Driver> StreamBackend for Redis<D> {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> StreamCapabilities {
        self.capabilities
    }

    async fn append(&self, request: &Append) -> Result<Vec<Result<EntryId>>> {
        let error = writing("append");
        let sent = |entry: &&_| !is_empty(entry);
        let stream = request.stream.as_str();
        let commands: Vec<_> =
            request.entries.iter().filter(sent).map(|entry| commands::xadd(stream, entry)).collect();
        let replies = match commands.is_empty() {
            true => Vec::new(),
            false => self.link.run_all(Some(stream), commands).await.map_err(&error)?,
        };
        let mut replies = replies.into_iter();
        let missing = Fault::Unreadable("a reply for each entry");
        let id = |entry| match is_empty(entry) {
            true => Err(Error::invalid("an entry needs at least one field")),
            false => replies.next().unwrap_or(Err(missing.clone())).and_then(reply::id).map_err(&error),
        };
        Ok(request.entries.iter().map(id).collect())
    }

    async fn trim(&self, request: &Trim) -> Result<u64> {
        let (stream, approximate) = (request.stream.as_str(), request.approximate);
        let command = match (request.limit, request.keep_from) {
            // What is kept for its id and what is kept for its id again: the lower bound holds for both.
            (TrimLimit::Below(id), keep_from) => {
                commands::xtrim_below(stream, keep_from.map_or(id, |keep| keep.min(id)), approximate)
            }
            (TrimLimit::Len(len), None) => commands::xtrim_len(stream, len, approximate),
            (TrimLimit::Len(len), Some(keep_from)) => return self.trim_to(stream, len, keep_from).await,
            _ => return Err(Error::new(ErrorKind::Unsupported, "this backend does not know this limit")),
        };
        self.link.run(Some(stream), &command).await.and_then(reply::count).map_err(writing("trim"))
    }

    async fn inspect(&self, request: &Inspect) -> Result<Option<StreamState>> {
        let counted = request.group.clone().filter(|_| request.count_alive);
        let heartbeats = counted.map(|group| {
            let stream = request.stream.clone();
            keys::heartbeats(&Subscription { stream, group })
        });
        let keys: Vec<_> =
            [Some(request.stream.as_str()), heartbeats.as_deref()].into_iter().flatten().collect();
        let arguments = |packed: &mut Packed| {
            if let Some(group) = &request.group {
                packed.arg(group.as_str().as_bytes());
            }
        };
        let reply = self.script(Script::Inspect, &keys, arguments).await;
        reply.and_then(stream_state).map_err(reading("inspect"))
    }

    async fn read(&self, request: &Read) -> Result<Vec<Entry>> {
        self.read_entries(request).await
    }

    async fn ensure_group(&self, request: &EnsureGroup) -> Result<bool> {
        // Servers read it as a signed number; a greater one than that cannot be true.
        let known = |ordinal: &u64| self.capabilities.counts_entries && i64::try_from(*ordinal).is_ok();
        let ordinal = request.ordinal.filter(known);
        let arguments = |packed: &mut Packed| {
            packed.arg(request.subscription.group.as_str().as_bytes());
            packed.push_id(request.at);
            packed.arg(ordinal.map(|ordinal| ordinal.to_string()).unwrap_or_default().as_bytes());
        };
        let keys = [request.subscription.stream.as_str()];
        let reply = self.script(Script::EnsureGroup, &keys, arguments).await;
        reply.and_then(reply::count).map(|created| created == 1).map_err(writing("ensure_group"))
    }

    async fn read_group(&self, request: &ReadGroup) -> Result<Vec<Delivery>> {
        self.read_deliveries(request).await
    }

    async fn read_pending(&self, request: &ReadPending) -> Result<Vec<PendingEntry>> {
        self.read_history(request).await
    }

    async fn claim(&self, request: &Claim) -> Result<Claimed> {
        at_least_one(request.limit)?;
        let subscription = &request.subscription;
        let arguments = |packed: &mut Packed| {
            packed.arg(subscription.group.as_str().as_bytes());
            packed.arg(request.consumer.as_str().as_bytes());
            packed.push_id(request.from);
            packed.push_number(commands::count(request.limit));
            packed.push_number(millis(request.min_idle).min(NUMBER_MAX));
            packed.push_number(millis(request.unless_within).min(NUMBER_MAX));
        };
        let keys = [subscription.stream.as_str(), &keys::heartbeats(subscription)];
        let reply = self.script(Script::Claim, &keys, arguments).await;
        reply.and_then(claimed).map_err(writing("claim"))
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<Beat> {
        let arguments = |packed: &mut Packed| {
            packed.arg(request.consumer.as_str().as_bytes());
            packed.push_number(request.token.0);
            packed.push_number(millis(request.ttl).min(NUMBER_MAX));
        };
        let key = keys::heartbeats(&request.subscription);
        let reply = self.script(Script::Heartbeat, &[&key], arguments).await;
        match &*reply.and_then(reply::bytes).map_err(writing("heartbeat"))? {
            b"unbroken" => Ok(Beat::Unbroken),
            b"fresh" => Ok(Beat::Fresh),
            _ => Err(Error::new(
                ErrorKind::Busy,
                "another live process uses the name of this consumer: choose another, or wait until it is gone",
            )
            .with("consumer", &request.consumer)),
        }
    }

    async fn ack(&self, request: &Ack) -> Result<Acked> {
        let ids = ascending(&request.ids);
        let arguments = |packed: &mut Packed| {
            packed.arg(request.subscription.group.as_str().as_bytes());
            push_ack(packed, request.count, &ids);
        };
        let keys = [request.subscription.stream.as_str()];
        let reply = self.script(Script::Ack, &keys, arguments).await;
        let parts = reply.and_then(reply::list).map_err(writing("ack"))?;
        let (acked, position) = acked(parts.into_iter(), "ack")?;
        Ok(Acked::new(acked, position))
    }

    async fn leave(&self, request: &Leave) -> Result<Left> {
        let subscription = &request.subscription;
        let arguments = |packed: &mut Packed| {
            packed.arg(subscription.group.as_str().as_bytes());
            packed.arg(request.consumer.as_str().as_bytes());
            packed.push_number(request.token.0);
        };
        let keys = [subscription.stream.as_str(), &keys::heartbeats(subscription)];
        let reply = self.script(Script::Leave, &keys, arguments).await;
        reply.and_then(reply::count).map(Left::new).map_err(writing("leave"))
    }

    async fn dead_letter(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        self.bury(request).await
    }

    async fn dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        self.count_dead_keys(request).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        self.redrive_letters(request).await
    }

    async fn remove(&self, request: &Removal) -> Result<u64> {
        match request {
            Removal::Entries(stream, ids) => {
                let commands: Vec<_> =
                    ids.chunks(commands::IDS_MAX).map(|ids| commands::xdel(stream.as_str(), ids)).collect();
                if commands.is_empty() {
                    return Ok(0);
                }
                let key = Some(stream.as_str());
                let replies = self.link.run_all(key, commands).await.map_err(writing("remove"))?;
                let count = |sum, reply: Result<_, Fault>| Ok(sum + reply.and_then(reply::count)?);
                replies.into_iter().try_fold(0, count).map_err(writing("remove"))
            }
            Removal::Group(subscription) => self.remove_group(subscription).await,
            Removal::Stream(stream) => {
                let prefix = keys::heartbeats_prefix(stream);
                let arguments = |packed: &mut Packed| packed.arg(prefix.as_bytes());
                let reply = self.script(Script::RemoveStream, &[stream.as_str()], arguments).await;
                reply.and_then(reply::count).map_err(writing("remove"))
            }
            _ => Err(Error::new(ErrorKind::Unsupported, "this backend does not know how to remove that")),
        }
    }

    async fn close(&self) {
        self.link.close();
    }
}

impl<D: Driver> Redis<D> {
    /// Trims to a length but keeps all from an id on, in steps that leave the server time for others.
    async fn trim_to(&self, stream: &str, len: u64, keep_from: EntryId) -> Result<u64> {
        if keep_from == EntryId::ZERO {
            return Ok(0);
        }
        let arguments = |packed: &mut Packed| {
            packed.push_number(len.min(NUMBER_MAX));
            packed.push_id(keep_from);
            packed.push_number(TRIM_STEPS);
        };
        let mut removed = 0;
        loop {
            let reply = self.script(Script::Trim, &[stream], arguments).await;
            let counts = reply.and_then(reply::list).map_err(writing("trim"))?;
            let counts: Result<Vec<u64>, _> = counts.into_iter().map(reply::count).collect();
            let [now, more] = counts.map_err(writing("trim"))?[..] else {
                return Err(writing("trim")(Fault::Unreadable("two counts")));
            };
            removed += now;
            if more == 0 {
                return Ok(removed);
            }
        }
    }

    async fn remove_group(&self, subscription: &Subscription) -> Result<u64> {
        let arguments = |packed: &mut Packed| packed.arg(subscription.group.as_str().as_bytes());
        let keys = [subscription.stream.as_str(), &keys::heartbeats(subscription)];
        let reply = self.script(Script::RemoveGroup, &keys, arguments).await;
        reply.and_then(reply::count).map_err(writing("remove"))
    }
}

fn is_empty(entry: &highwater::backend::NewEntry) -> bool {
    entry.fields.is_empty()
}

/// The scripts look at the greatest ids first, and say how many were pending: no id twice.
pub(crate) fn ascending(ids: &[EntryId]) -> std::borrow::Cow<'_, [EntryId]> {
    if ids.is_sorted_by(|a, b| a < b) {
        return ids.into();
    }
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids.into()
}

/// The arguments that acking takes in every script.
pub(crate) fn push_ack(packed: &mut Packed, count: bool, ids: &[EntryId]) {
    packed.arg(if count { b"1" } else { b"0" });
    packed.push_number(AHEAD_BYTES_MAX as u64);
    for &id in ids {
        packed.push_id(id);
    }
}

/// How many were acked, and where the group then stands, if it is there.
pub(crate) fn acked<V: Value>(
    mut parts: impl Iterator<Item = V>,
    operation: &'static str,
) -> Result<(u64, Option<Position>)> {
    let error = writing(operation);
    let missing = || error(Fault::Unreadable("a count of acks"));
    let acked = reply::count(parts.next().ok_or_else(missing)?).map_err(&error)?;
    let Some(watermark) = parts.next() else { return Ok((acked, None)) };
    let watermark = reply::id(watermark).map_err(&error)?;
    let ahead = reply::optional_string(parts.next()).map_err(&error)?.unwrap_or_default();
    let ordinal = reply::optional_string(parts.next()).map_err(&error)?;
    let position = Position::at(watermark)
        .with_ahead(SettledAhead::decode(&ahead)?)
        .with_ordinal(ordinal.and_then(|ordinal| ordinal.parse().ok()));
    Ok((acked, Some(position)))
}

pub(crate) fn stream_state<V: Value>(value: V) -> Result<Option<StreamState>, Fault> {
    let Some(parts) = reply::optional_list(value)? else { return Ok(None) };
    let mut parts = parts.into_iter();
    let (Some(len), Some(first), Some(last), Some(added)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::Unreadable("the state of a stream"));
    };
    let mut state = StreamState::new(reply::id(last)?, reply::count(len)?);
    state.first_id = reply::optional_id(first)?;
    state.entries_added = reply::optional_count(added)?;
    state.group = parts.next().map(group_state).transpose()?;
    Ok(Some(state))
}

fn group_state<V: Value>(value: V) -> Result<GroupState, Fault> {
    let mut parts = reply::list(value)?.into_iter();
    let (Some(delivered), Some(read), Some(pending), Some(first), Some(alive)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::Unreadable("the state of a group"));
    };
    let mut state = GroupState::new(reply::id(delivered)?);
    state.entries_read = reply::optional_count(read)?;
    state.pending = reply::count(pending)?;
    state.first_pending = reply::optional_id(first)?;
    state.consumers_alive = reply::optional_count(alive)?;
    Ok(state)
}

pub(crate) fn claimed<V: Value>(value: V) -> Result<Claimed, Fault> {
    let mut parts = reply::list(value)?.into_iter();
    let (Some(next), Some(entries)) = (parts.next(), parts.next()) else {
        return Err(Fault::Unreadable("the claimed entries"));
    };
    let entry = |value| {
        let mut parts = reply::list(value)?.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(id), Some(deliveries), Some(fields)) => {
                Ok(PendingEntry::new(reply::id(id)?, reply::count(deliveries)?, reply::fields(fields)?))
            }
            _ => Err(Fault::Unreadable("a claimed entry")),
        }
    };
    let entries: Result<_, Fault> = reply::list(entries)?.into_iter().map(entry).collect();
    Ok(Claimed::new(entries?, reply::optional_id(next)?))
}
