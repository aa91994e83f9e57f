//! What the fuzz target of replies calls: any tree of values, in the forms of both drivers, is read alike and without a panic.
//!
//! Only there under `cfg(fuzzing)`, and in this crate's own tests, which run the kept corpus.

use bytes::Bytes;
use fred::types::Resp3Frame;
use redis::parse_redis_value;

use crate::{
    checkpoint::{read_answer, read_record},
    client::{Fault, ReadReply, Reply, Value},
    error::reading,
    read::pending_entries,
    reply,
    stream::{acked, claimed, stream_state},
};

/// How deep values are put into each other.
const DEPTH_MAX: u8 = 6;

/// What a reply is read to, as text: equal if and only if the results are.
type Read = String;

/// Makes a reply of any bytes and reads it in every way.
pub fn reply(mut data: &[u8]) {
    let tree = Tree::of(&mut data, 0);
    let (redis, fred) = (tree.redis(), tree.fred());
    assert_eq!(plain(redis.clone()), plain(fred.clone()), "{tree:?}");
    assert_eq!(redis.clone().checked().map(plain), fred.clone().checked().map(plain));
    let wire = Bytes::from(tree.wire());
    assert_eq!(parse_redis_value(&wire).map(plain).map_err(drop), Ok(plain(redis.clone())), "{tree:?}");
    // What is taken apart without a driver is what a driver would have made of it, or nothing.
    if let Ok(entries) = reply::entries(ReadReply::<redis::Value>::Frame(wire)) {
        assert_eq!(
            entries,
            reply::entries(ReadReply::Value(redis.clone())).expect("it can be read"),
            "{tree:?}"
        );
    }
    for ((name, by_redis), (_, by_fred)) in all_ways(&redis).into_iter().zip(all_ways(&fred)) {
        assert_eq!(by_redis, by_fred, "{name} of {tree:?}");
    }
}

fn all_ways<V: Value + Clone>(value: &V) -> Vec<(&'static str, Read)> {
    let v = || value.clone();
    let parts = || reply::list(v()).unwrap_or_default().into_iter();
    vec![
        ("list", said(reply::list(v()).map(|list| list.into_iter().map(plain).collect::<Vec<_>>()))),
        ("optional_list", said(reply::optional_list(v()).map(|list| list.map(|list| list.len())))),
        ("bytes", said(reply::bytes(v()))),
        ("optional_string", said(reply::optional_string(Some(v())))),
        ("string", said(reply::string(v()))),
        ("int", said(reply::int(v()))),
        ("count", said(reply::count(v()))),
        ("optional_count", said(reply::optional_count(v()))),
        ("id", said(reply::id(v()))),
        ("optional_id", said(reply::optional_id(v()))),
        ("fields", said(reply::fields(v()))),
        ("entry", said(reply::entry(v()))),
        ("entries", said(reply::entries(ReadReply::Value(v())))),
        ("deliveries", said(reply::deliveries(ReadReply::Value(v())))),
        ("streams", said(reply::streams(v()))),
        ("last_id", said(reply::last_id(v()))),
        ("history", said(reply::history(v()))),
        ("delivery_counts", said(reply::delivery_counts(v()))),
        ("stream_state", said(stream_state(v()))),
        ("claimed", said(claimed(v()))),
        ("pending_entries", said(pending_entries(parts().map(Ok).collect()))),
        ("acked", format!("{:?}", acked(parts(), "ack"))),
        ("record", format!("{:?}", read_record(Ok(v()), "load"))),
        ("answer", format!("{:?}", read_answer(v(), "advance").map(drop))),
    ]
}

fn said<T: std::fmt::Debug>(result: Result<T, Fault>) -> Read {
    format!("{:?}", result.map_err(reading("read")))
}

/// A value without its driver.
#[derive(Debug, PartialEq)]
enum Plain {
    Nil,
    Int(i64),
    Bytes(Bytes),
    List(Vec<Plain>),
    Map(Vec<(Plain, Plain)>),
    Error(String),
    Other,
}

fn plain<V: Value>(value: V) -> Plain {
    match value.open() {
        Reply::Nil => Plain::Nil,
        Reply::Int(number) => Plain::Int(number),
        Reply::Bytes(bytes) => Plain::Bytes(bytes),
        Reply::List(items) => Plain::List(items.into_iter().map(plain).collect()),
        Reply::Map(pairs) => Plain::Map(pairs.into_iter().map(|(k, v)| (plain(k), plain(v))).collect()),
        Reply::Error(text) => Plain::Error(text),
        Reply::Other => Plain::Other,
    }
}

/// A reply as a server may send it.
#[derive(Debug)]
enum Tree {
    Nil,
    Int(i64),
    Bool(bool),
    Double(u8),
    Blob(Vec<u8>),
    Simple(String),
    Error(String),
    List(Vec<Tree>),
    Push(Vec<Tree>),
    /// The drivers keep a set, and a map, in orders of their own: only of one member are they the same.
    Set(Option<Box<Tree>>),
    Map(Option<(String, Box<Tree>)>),
}

fn byte(data: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    first
}

/// What scripts and commands answer with, and what looks like it.
const WORDS: &[&str] = &[
    "ok",
    "1-0",
    "18446744073709551615-18446744073709551615",
    "5",
    "-1",
    "",
    "fenced",
    "held",
    "corrupt",
    "v",
    "1",
    "watermark",
    "ahead",
    "2-0 >+1-0",
    "ordinal",
    "epoch",
    "owner",
    "updated_at",
    "lease_until",
    "lease_owner",
    "incarnation",
    "2",
];

/// Errors of servers.
const ERRORS: &[&str] = &[
    "ERR unknown command",
    "NOGROUP No such key",
    "WRONGTYPE Operation",
    "OOM command not allowed",
    "READONLY You can't write",
    "MOVED 1 127.0.0.1:1",
    "ASK 1 127.0.0.1:1",
    "LOADING",
    "NOSCRIPT No matching script",
    "UNBLOCKED gone",
    "ERR",
    "Strange text",
];

impl Tree {
    fn of(data: &mut &[u8], depth: u8) -> Self {
        let kind = byte(data) % if depth < DEPTH_MAX { 16 } else { 10 };
        match kind {
            0 => Self::Nil,
            1 => Self::Int(byte(data).into()),
            2 => Self::Int(i64::MIN + i64::from(byte(data))),
            3 => Self::Bool(byte(data) > 127),
            4 => Self::Double(byte(data)),
            5 | 6 => Self::Blob(WORDS[usize::from(byte(data)) % WORDS.len()].into()),
            7 => {
                let len = usize::from(byte(data) % 24).min(data.len());
                let (text, rest) = data.split_at(len);
                *data = rest;
                Self::Blob(text.to_vec())
            }
            8 => Self::Simple(WORDS[usize::from(byte(data)) % WORDS.len()].into()),
            9 => Self::Error(ERRORS[usize::from(byte(data)) % ERRORS.len()].into()),
            10..13 => Self::List(Self::some(data, depth)),
            13 => Self::Push(Self::some(data, depth)),
            14 => Self::Set((byte(data) > 20).then(|| Box::new(Self::of(data, DEPTH_MAX)))),
            _ => {
                let name = WORDS[usize::from(byte(data)) % WORDS.len()];
                Self::Map((!name.is_empty()).then(|| (name.to_owned(), Box::new(Self::of(data, depth + 1)))))
            }
        }
    }

    fn some(data: &mut &[u8], depth: u8) -> Vec<Self> {
        (0..byte(data) % 7).map(|_| Self::of(data, depth + 1)).collect()
    }

    /// As it comes from a server.
    fn wire(&self) -> Vec<u8> {
        let blob = |bytes: &[u8]| [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let many = |kind, items: &mut dyn Iterator<Item = Vec<u8>>, of: usize| {
            let items: Vec<_> = items.collect();
            [format!("{kind}{}\r\n", items.len() / of).into_bytes(), items.concat()].concat()
        };
        match self {
            Self::Nil => b"_\r\n".to_vec(),
            Self::Int(number) => format!(":{number}\r\n").into_bytes(),
            Self::Bool(truth) => format!("#{}\r\n", if *truth { 't' } else { 'f' }).into_bytes(),
            Self::Double(number) => format!(",{number}\r\n").into_bytes(),
            Self::Blob(bytes) => blob(bytes),
            Self::Simple(text) => format!("+{text}\r\n").into_bytes(),
            Self::Error(text) => format!("-{text}\r\n").into_bytes(),
            Self::List(items) => many('*', &mut items.iter().map(Self::wire), 1),
            Self::Push(items) => {
                // The drivers see what kind of message it is.
                many('>', &mut [blob(b"message")].into_iter().chain(items.iter().map(Self::wire)), 1)
            }
            Self::Set(member) => many('~', &mut member.iter().map(|member| member.wire()), 1),
            Self::Map(members) => {
                let pair = |(name, value): &(String, Box<Self>)| [blob(name.as_bytes()), value.wire()];
                many('%', &mut members.iter().flat_map(pair), 2)
            }
        }
    }

    fn redis(&self) -> redis::Value {
        use redis::Value;
        match self {
            Self::Nil => Value::Nil,
            Self::Int(number) => Value::Int(*number),
            Self::Bool(truth) => Value::Boolean(*truth),
            Self::Double(number) => Value::Double((*number).into()),
            Self::Blob(bytes) => Value::BulkString(bytes.clone()),
            Self::Simple(text) if text == "OK" => Value::Okay,
            Self::Simple(text) => Value::SimpleString(text.clone()),
            Self::Error(text) => {
                parse_redis_value(format!("-{text}\r\n").as_bytes()).expect("an error reply is a value")
            }
            Self::List(items) => Value::Array(items.iter().map(Self::redis).collect()),
            Self::Push(items) => {
                Value::Push { kind: redis::PushKind::Message, data: items.iter().map(Self::redis).collect() }
            }
            Self::Set(member) => Value::Set(member.iter().map(|member| member.redis()).collect()),
            Self::Map(members) => {
                let pair = |(name, value): &(String, Box<Self>)| {
                    (Value::BulkString(name.clone().into_bytes()), value.redis())
                };
                Value::Map(members.iter().map(pair).collect())
            }
        }
    }

    fn fred(&self) -> Resp3Frame {
        let attributes = None;
        match self {
            Self::Nil => Resp3Frame::Null,
            Self::Int(number) => Resp3Frame::Number { data: *number, attributes },
            Self::Bool(truth) => Resp3Frame::Boolean { data: *truth, attributes },
            Self::Double(number) => Resp3Frame::Double { data: (*number).into(), attributes },
            Self::Blob(bytes) => Resp3Frame::BlobString { data: bytes.clone().into(), attributes },
            Self::Simple(text) => Resp3Frame::SimpleString { data: text.clone().into(), attributes },
            Self::Error(text) => Resp3Frame::SimpleError { data: text.clone().into(), attributes },
            Self::List(items) => {
                Resp3Frame::Array { data: items.iter().map(Self::fred).collect(), attributes }
            }
            Self::Push(items) => {
                Resp3Frame::Push { data: items.iter().map(Self::fred).collect(), attributes }
            }
            Self::Set(member) => {
                Resp3Frame::Set { data: member.iter().map(|member| member.fred()).collect(), attributes }
            }
            Self::Map(members) => {
                let pair = |(name, value): &(String, Box<Self>)| {
                    (Resp3Frame::BlobString { data: name.clone().into(), attributes: None }, value.fred())
                };
                Resp3Frame::Map { data: members.iter().map(pair).collect(), attributes }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/reply");
        let mut files = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            reply(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0);
    }
}
