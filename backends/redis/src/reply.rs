//! Reads replies: every shape that the two versions of the protocol have, whatever the driver.
//!
//! Replies are taken apart by ownership, so that payload bytes move and are not copied.

use bytes::Bytes;
use highwater::{Delivery, Entry, EntryId, Fields};

use crate::client::{Fault, ReadReply, Reply, Value, entries_of_frame};

type Result<T> = std::result::Result<T, Fault>;

/// Opens a reply; an error reply is an error.
pub(crate) fn open<V: Value>(value: V) -> Result<Reply<V>> {
    match value.open() {
        Reply::Error(text) => Err(Fault::Server(text)),
        reply => Ok(reply),
    }
}

/// A list. A map is one as well, of names and values in turn.
pub(crate) fn list<V: Value>(value: V) -> Result<Vec<V>> {
    match open(value)? {
        Reply::List(items) => Ok(items),
        Reply::Map(pairs) => Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
        _ => Err(Fault::Unreadable("a list was expected")),
    }
}

/// A list, or nothing where the value is nil.
pub(crate) fn optional_list<V: Value>(value: V) -> Result<Option<Vec<V>>> {
    match open(value)? {
        Reply::Nil => Ok(None),
        Reply::List(items) => Ok(Some(items)),
        _ => Err(Fault::Unreadable("a list or nil was expected")),
    }
}

pub(crate) fn bytes<V: Value>(value: V) -> Result<Bytes> {
    optional_bytes(value)?.ok_or(Fault::Unreadable("a string was expected"))
}

pub(crate) fn optional_bytes<V: Value>(value: V) -> Result<Option<Bytes>> {
    match open(value)? {
        Reply::Nil => Ok(None),
        Reply::Bytes(bytes) => Ok(Some(bytes)),
        Reply::Int(number) => Ok(Some(number.to_string().into())),
        _ => Err(Fault::Unreadable("a string was expected")),
    }
}

/// A string that this crate has stored or that is ASCII by the protocol.
pub(crate) fn string<V: Value>(value: V) -> Result<String> {
    utf8(bytes(value)?)
}

/// A string or, where the value is nil or absent, nothing.
pub(crate) fn optional_string<V: Value>(value: Option<V>) -> Result<Option<String>> {
    match value {
        Some(value) => optional_bytes(value)?.map(utf8).transpose(),
        None => Ok(None),
    }
}

fn utf8(bytes: Bytes) -> Result<String> {
    String::from_utf8(bytes.into()).map_err(|_| Fault::Unreadable("text was expected"))
}

pub(crate) fn int<V: Value>(value: V) -> Result<i64> {
    match open(value)? {
        Reply::Int(number) => Ok(number),
        Reply::Bytes(digits) => std::str::from_utf8(&digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or(Fault::Unreadable("a number was expected")),
        _ => Err(Fault::Unreadable("a number was expected")),
    }
}

/// A number of things. Below zero it means that the server does not know.
pub(crate) fn count<V: Value>(value: V) -> Result<u64> {
    Ok(u64::try_from(int(value)?).unwrap_or(0))
}

/// A number of things, or nothing where the server does not know.
pub(crate) fn optional_count<V: Value>(value: V) -> Result<Option<u64>> {
    match value.open() {
        Reply::Nil => Ok(None),
        Reply::Int(number) => Ok(u64::try_from(number).ok()),
        Reply::Error(text) => Err(Fault::Server(text)),
        _ => Err(Fault::Unreadable("a number or nil was expected")),
    }
}

pub(crate) fn id<V: Value>(value: V) -> Result<EntryId> {
    optional_id(value)?.ok_or(Fault::Unreadable("an id was expected"))
}

pub(crate) fn optional_id<V: Value>(value: V) -> Result<Option<EntryId>> {
    match open(value)? {
        Reply::Nil => Ok(None),
        Reply::Bytes(text) => {
            EntryId::from_bytes(&text).map(Some).ok_or(Fault::Unreadable("an id was expected"))
        }
        _ => Err(Fault::Unreadable("an id was expected")),
    }
}

/// The fields of an entry, one allocation for all of them; `None` if the entry left the stream.
pub(crate) fn fields<V: Value>(value: V) -> Result<Option<Fields>> {
    let items = match open(value)? {
        Reply::Nil => return Ok(None),
        Reply::List(items) => items,
        _ => return Err(Fault::Unreadable("the fields of an entry were expected")),
    };
    if items.len() % 2 == 1 {
        return Err(Fault::Unreadable("a field has no value"));
    }
    let pairs = items.len() / 2;
    let mut items = items.into_iter();
    let mut fault = None;
    let mut next = || match items.next().map(bytes) {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => {
            fault = Some(error);
            Bytes::new()
        }
        None => Bytes::new(),
    };
    // A mapped range knows its length, so the pairs are collected in place.
    let fields: Fields = (0..pairs).map(|_| (next(), next())).collect();
    fault.map_or(Ok(Some(fields)), Err)
}

/// An entry as `[id, fields]`; what follows, in later servers, is of no interest.
pub(crate) fn entry<V: Value>(value: V) -> Result<(EntryId, Option<Fields>)> {
    let mut parts = list(value)?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(first), Some(second)) => Ok((id(first)?, fields(second)?)),
        _ => Err(Fault::Unreadable("an entry is an id and its fields")),
    }
}

/// The entries of the one stream that was read. Nil, or no stream: nothing.
fn of_one_stream<V: Value>(value: V) -> Result<Vec<V>> {
    match open(value)? {
        Reply::Nil => Ok(Vec::new()),
        Reply::Map(mut streams) => streams.pop().map_or(Ok(Vec::new()), |(_, entries)| list(entries)),
        Reply::List(mut streams) => {
            match streams.pop().map(list).transpose()?.and_then(|mut parts| parts.pop()) {
                Some(entries) => list(entries),
                None => Ok(Vec::new()),
            }
        }
        _ => Err(Fault::Unreadable("streams were expected")),
    }
}

/// The names of the streams in the reply to `XREAD`.
pub(crate) fn streams<V: Value>(value: V) -> Result<Vec<Bytes>> {
    let name =
        |value| list(value)?.into_iter().next().map_or(Err(Fault::Unreadable("a stream has a name")), bytes);
    match open(value)? {
        Reply::Nil => Ok(Vec::new()),
        Reply::Map(streams) => streams.into_iter().map(|(name, _)| bytes(name)).collect(),
        Reply::List(streams) => streams.into_iter().map(name).collect(),
        _ => Err(Fault::Unreadable("streams were expected")),
    }
}

/// The id in the reply to `XREVRANGE` for one entry; zero where there is none.
pub(crate) fn last_id<V: Value>(value: V) -> Result<EntryId> {
    list(value)?.into_iter().next().map_or(Ok(EntryId::ZERO), |value| Ok(entry(value)?.0))
}

/// The reply to `XREAD`.
pub(crate) fn entries<V: Value>(reply: ReadReply<V>) -> Result<Vec<Entry>> {
    read(reply, Entry::new)
}

/// The reply to `XREADGROUP` for new entries.
pub(crate) fn deliveries<V: Value>(reply: ReadReply<V>) -> Result<Vec<Delivery>> {
    read(reply, |id, fields| Delivery::new(Entry::new(id, fields), 1))
}

fn read<V: Value, T>(reply: ReadReply<V>, make: impl Fn(EntryId, Fields) -> T) -> Result<Vec<T>> {
    let value = match reply {
        ReadReply::Frame(frame) => return entries_of_frame(&frame, make),
        ReadReply::Value(value) => value,
    };
    let parse = |value| match entry(value)? {
        (id, Some(fields)) => Ok(make(id, fields)),
        (_, None) => Err(Fault::Unreadable("an entry that was read has no fields")),
    };
    of_one_stream(value)?.into_iter().map(parse).collect()
}

/// The reply to `XREADGROUP` for pending entries.
pub(crate) fn history<V: Value>(value: V) -> Result<Vec<(EntryId, Option<Fields>)>> {
    of_one_stream(value)?.into_iter().map(entry).collect()
}

/// The ids and delivery counts in the reply to `XPENDING` with a range.
pub(crate) fn delivery_counts<V: Value>(value: V) -> Result<Vec<(EntryId, u64)>> {
    let parse = |value| {
        let mut parts = list(value)?.into_iter();
        match (parts.next(), parts.nth(2)) {
            (Some(entry), Some(deliveries)) => Ok((id(entry)?, count(deliveries)?)),
            _ => Err(Fault::Unreadable("a pending entry has four parts")),
        }
    };
    list(value)?.into_iter().map(parse).collect()
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
