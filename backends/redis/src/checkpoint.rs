//! The checkpoint store.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use highwater::{
    Attempts, Checkpoint, ConsumerName, EntryId, Epoch, Error, ErrorKind, GroupName, Position, Result,
    SettledAhead, StreamName, Subscription,
    backend::{
        Acquire, Acquired, Advance, Advanced, CheckpointBackend, Grant, LoadAttempts, NoteAttempts, Release,
        Renew, ResetCheckpoint,
    },
    checkpoint::{Parts, check_version},
    clock::millis,
};

use crate::{
    backend::Redis,
    client::{Arguments, Command, CommandOf, Driver, Fault, Value, ValueOf},
    commands::{Build, Push},
    error::{reading, writing},
    keys,
    packed::Packed,
    reply,
    scripts::Script,
    stream::NUMBER_MAX,
};

#[async_trait]
impl<D: Driver> CheckpointBackend for Redis<D> {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn load(&self, subscription: &Subscription) -> Result<Option<Checkpoint>> {
        let command = CommandOf::<D>::new("HGETALL").with(keys::checkpoint(subscription));
        let value = self.link.run(Some(subscription.stream.as_str()), &command).await;
        read_record(value, "load").map_err(|error| error.with("subscription", subscription))
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<(GroupName, Checkpoint)>> {
        let on = Some(stream.as_str());
        let groups = self.link.run(on, &CommandOf::<D>::new("SMEMBERS").with(keys::groups(stream))).await;
        let groups = groups.and_then(reply::list).map_err(|fault| of_record(fault, "list"))?;
        let no_name = |error: Error| unreadable().with_source(error).with("key", keys::groups(stream));
        let name = |value| {
            let name = reply::string(value).map_err(reading("list")).and_then(GroupName::new);
            name.map_err(no_name)
        };
        let mut groups = groups.into_iter().map(name).collect::<Result<Vec<_>>>()?;
        groups.sort_unstable();
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let key = |group: &GroupName| {
            keys::checkpoint(&Subscription { stream: stream.clone(), group: group.clone() })
        };
        let commands = groups.iter().map(|group| CommandOf::<D>::new("HGETALL").with(key(group))).collect();
        let records = self.link.run_all(on, commands).await.map_err(reading("list"))?;
        let mut found = Vec::with_capacity(groups.len());
        for (group, record) in groups.into_iter().zip(records) {
            let checkpoint = read_record(record, "list").map_err(|error| error.with("group", &group))?;
            found.extend(checkpoint.map(|checkpoint| (group, checkpoint)));
        }
        Ok(found)
    }

    async fn acquire(&self, request: &Acquire) -> Result<Acquired> {
        let arguments = |packed: &mut Packed| {
            packed.arg(request.owner.as_str().as_bytes());
            packed.push_number(millis(request.ttl).min(NUMBER_MAX));
        };
        match self.record_script(Script::Acquire, &request.subscription, "acquire", arguments).await? {
            Answer::Done(parts) => acquired(parts),
            Answer::Held(owner, remaining) => Ok(Acquired::held(owner, remaining)),
            Answer::Fenced(stored) => Err(never(stored, "acquire")),
        }
    }

    async fn renew(&self, request: &Renew) -> Result<()> {
        let ttl = millis(request.ttl).min(NUMBER_MAX).to_string();
        self.lease(&request.subscription, request.epoch, &ttl, "renew").await
    }

    async fn release(&self, request: &Release) -> Result<()> {
        self.lease(&request.subscription, request.epoch, "", "release").await
    }

    async fn advance(&self, request: &Advance) -> Result<Advanced> {
        let arguments = |packed: &mut Packed| {
            packed.push_number(request.epoch.0);
            packed.arg(request.owner.as_str().as_bytes());
            push_position(packed, &request.position);
        };
        match self.record_script(Script::Advance, &request.subscription, "advance", arguments).await? {
            Answer::Done(mut parts) => {
                let error = writing("advance");
                let (Some(moved), Some(watermark)) = (parts.next(), parts.next()) else {
                    return Err(error(Fault::Unreadable("what an advance did")));
                };
                Ok(Advanced::new(
                    reply::int(moved).map_err(&error)? == 1,
                    reply::id(watermark).map_err(&error)?,
                ))
            }
            Answer::Fenced(stored) => Err(wrong_epoch(request.epoch, stored)),
            Answer::Held(..) => Err(never(request.epoch, "advance")),
        }
    }

    async fn reset(&self, request: &ResetCheckpoint) -> Result<Epoch> {
        let arguments = |packed: &mut Packed| {
            packed.arg(request.expected.map(|epoch| epoch.to_string()).unwrap_or_default().as_bytes());
            packed.arg(flag(request.force));
            packed.arg(flag(request.position.is_some()));
            push_position(packed, request.position.as_ref().unwrap_or(&Position::default()));
            packed.arg(request.paused.map_or(b"", |paused| flag(paused)));
            packed.arg(request.reason().unwrap_or_default().as_bytes());
            let watermark = request.expected_watermark.map(|watermark| watermark.to_string());
            packed.arg(watermark.unwrap_or_default().as_bytes());
        };
        match self.record_script(Script::Reset, &request.subscription, "reset", arguments).await? {
            Answer::Done(parts) => was_reset(parts, request),
            Answer::Fenced(stored) => Err(Error::new(
                ErrorKind::Fenced,
                "the stored epoch is not the expected one: load the checkpoint, and decide again",
            )
            .with("expected", request.expected.unwrap_or_default())
            .with("stored", stored)),
            Answer::Held(owner, remaining) => {
                let owner = owner.map(|owner| owner.to_string()).unwrap_or_default();
                Err(Error::new(
                    ErrorKind::Busy,
                    "somebody's lease stands: stop the owner, wait, or force the reset",
                )
                .with("owner", owner)
                .with("remaining", format!("{remaining:?}")))
            }
        }
    }

    async fn attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        self.load_attempts(request).await
    }

    async fn note_attempts(&self, request: &NoteAttempts) -> Result<()> {
        self.keep_attempts(request).await
    }

    async fn close(&self) {
        self.link.close();
    }
}

impl<D: Driver> Redis<D> {
    async fn lease(
        &self,
        subscription: &Subscription,
        epoch: Epoch,
        ttl: &str,
        operation: &'static str,
    ) -> Result<()> {
        let arguments = |packed: &mut Packed| {
            packed.push_number(epoch.0);
            packed.arg(ttl.as_bytes());
        };
        match self.record_script(Script::Lease, subscription, operation, arguments).await? {
            Answer::Done(_) => Ok(()),
            Answer::Fenced(stored) => Err(Error::fenced(epoch, stored)),
            Answer::Held(..) => Err(never(epoch, operation)),
        }
    }

    pub(crate) async fn record_script(
        &self,
        script: Script,
        subscription: &Subscription,
        operation: &'static str,
        arguments: impl FnOnce(&mut Packed),
    ) -> Result<Answer<ValueOf<D>>> {
        let keys = [
            &*keys::checkpoint(subscription),
            &*keys::groups(&subscription.stream),
            &*keys::settled(subscription),
            &*keys::attempts(subscription),
        ];
        let arguments = |packed: &mut Packed| {
            packed.arg(subscription.group.as_str().as_bytes());
            arguments(packed);
        };
        let value = self.script(script, &keys, arguments).await.map_err(writing(operation))?;
        read_answer(value, operation).map_err(|error| error.with("subscription", subscription))
    }
}

/// What a script that works on a record answers.
pub(crate) enum Answer<V> {
    /// It did; the rest of its answer.
    Done(std::vec::IntoIter<V>),
    /// This other epoch is stored.
    Fenced(Epoch),
    /// Somebody's lease stands, and for how long.
    Held(Option<ConsumerName>, Duration),
}

pub(crate) fn read_answer<V: Value>(value: V, operation: &'static str) -> Result<Answer<V>> {
    let error = writing(operation);
    let mut parts = reply::list(value).map_err(&error)?.into_iter();
    let missing = || error(Fault::Unreadable("how it went"));
    match &*reply::bytes(parts.next().ok_or_else(missing)?).map_err(&error)? {
        b"ok" => Ok(Answer::Done(parts)),
        b"fenced" => Ok(Answer::Fenced(epoch(parts.next(), operation)?)),
        b"held" => {
            let owner = reply::optional_string(parts.next()).map_err(&error)?.unwrap_or_default();
            let remaining = reply::count(parts.next().ok_or_else(missing)?).map_err(&error)?;
            Ok(Answer::Held(ConsumerName::new(owner).ok(), Duration::from_millis(remaining)))
        }
        b"corrupt" => {
            // The record tells best what is wrong with it.
            let read = parts.next().map_or(Ok(None), |record| read_record(Ok(record), operation));
            Err(read.err().unwrap_or_else(unreadable))
        }
        _ => Err(missing()),
    }
}

/// Why an epoch that is not the stored one is refused.
pub(crate) fn wrong_epoch(ours: Epoch, stored: Epoch) -> Error {
    if stored > ours {
        return Error::fenced(ours, stored);
    }
    Error::invalid("this epoch was never issued, or the checkpoint was lost: load the checkpoint, or acquire the subscription")
        .with("epoch", ours)
        .with("stored", stored)
}

fn never(epoch: Epoch, operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Internal,
        "the server gave an answer that this call does not have: please report it",
    )
    .with("operation", operation)
    .with("epoch", epoch)
}

fn unreadable() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the key of the checkpoint holds no checkpoint: look at the record, then restore it or delete the key",
    )
}

/// On the key of a checkpoint, a value of another type is a checkpoint that cannot be read.
fn of_record(fault: Fault, operation: &'static str) -> Error {
    match &fault {
        Fault::Server(text) if text.starts_with("WRONGTYPE") => unreadable().with_source(&**text),
        _ => reading(operation)(fault),
    }
}

pub(crate) fn push_position(packed: &mut Packed, position: &Position) {
    packed.push_id(position.watermark);
    packed.arg(position.ahead.encode().as_bytes());
    packed.arg(position.ordinal.map(|ordinal| ordinal.to_string()).unwrap_or_default().as_bytes());
    packed.arg(position.incarnation.as_ref().map_or("", |incarnation| incarnation.as_str()).as_bytes());
}

/// An argument that says yes or no.
fn flag(yes: bool) -> &'static [u8] {
    if yes { b"1" } else { b"0" }
}

/// The new epoch or, behind nothing, the watermark that is not the expected one.
fn was_reset<V: Value>(mut parts: impl Iterator<Item = V>, request: &ResetCheckpoint) -> Result<Epoch> {
    let error = writing("reset");
    let epoch = reply::optional_string(parts.next()).map_err(&error)?.unwrap_or_default();
    if epoch.is_empty() {
        let stored = parts.next().ok_or_else(|| error(Fault::Unreadable("a watermark")))?;
        let stored = reply::id(stored).map_err(&error)?;
        return Err(Error::moved(request.expected_watermark.unwrap_or_default(), stored));
    }
    epoch.parse().map(Epoch).map_err(|_| error(Fault::Unreadable("an epoch")))
}

fn epoch<V: Value>(value: Option<V>, operation: &'static str) -> Result<Epoch> {
    let text = reply::optional_string(value).map_err(writing(operation))?;
    let number = text.and_then(|text| text.parse().ok());
    number.map(Epoch).ok_or_else(|| writing(operation)(Fault::Unreadable("an epoch")))
}

fn acquired<V: Value>(mut parts: impl Iterator<Item = V>) -> Result<Acquired> {
    let epoch = epoch(parts.next(), "acquire")?;
    let mut next =
        || reply::optional_string(parts.next()).map(Option::unwrap_or_default).map_err(writing("acquire"));
    let texts: [String; 4] = [next()?, next()?, next()?, next()?];
    let [watermark, ahead, ordinal, incarnation] = texts.each_ref().map(String::as_str);
    if watermark.is_empty() {
        return Ok(Acquired::Owned(Grant::new(epoch, None)));
    }
    let parts = Parts {
        watermark,
        ahead,
        ordinal,
        incarnation,
        epoch: "0",
        owner: "",
        updated_at: "0",
        ..Parts::default()
    };
    Ok(Acquired::Owned(Grant::new(epoch, Some(Checkpoint::from_parts(&parts)?.position))))
}

/// Reads a record. `None`: there is none, or it has no position yet since its owner never advanced it.
pub(crate) fn read_record<V: Value>(
    value: Result<V, Fault>,
    operation: &'static str,
) -> Result<Option<Checkpoint>> {
    let texts = value.and_then(reply::list).map_err(|fault| of_record(fault, operation))?;
    if texts.is_empty() {
        return Ok(None);
    }
    let text = |value| reply::string(value).map_err(|_| unreadable());
    let texts: Vec<String> = texts.into_iter().map(text).collect::<Result<_>>()?;
    let fields: HashMap<&str, &str> = texts.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1])).collect();
    let field = |name| fields.get(name).copied().unwrap_or_default();
    check_version(field("v"))?;
    let lease = [field("lease_until"), field("lease_owner")];
    if !(lease[0].is_empty() || lease[0].parse::<u64>().is_ok()) {
        return Err(unreadable().with("lease_until", lease[0].escape_debug()));
    }
    if !lease[1].is_empty() {
        ConsumerName::new(lease[1]).map_err(|error| unreadable().with_source(error))?;
    }
    let zero = EntryId::ZERO.to_string();
    let unset = field("watermark").is_empty();
    let parts = Parts {
        watermark: if unset { &zero } else { field("watermark") },
        ahead: field("ahead"),
        ordinal: field("ordinal"),
        incarnation: field("incarnation"),
        epoch: field("epoch"),
        owner: field("owner"),
        updated_at: field("updated_at"),
        paused: field("paused"),
        reason: field("reason"),
    };
    let checkpoint = Checkpoint::from_parts(&parts)?;
    if unset
        && (checkpoint.position.ahead != SettledAhead::default() || checkpoint.position.ordinal.is_some())
    {
        return Err(unreadable().with("watermark", ""));
    }
    Ok((!unset).then_some(checkpoint))
}
