use std::fmt::Debug;

use super::{Result, *};

/// A driver's value, as plain as can be.
#[derive(Clone, Debug)]
enum Fake {
    Nil,
    Int(i64),
    Text(&'static [u8]),
    List(Vec<Fake>),
    Map(Vec<(Fake, Fake)>),
    Error(&'static str),
    Strange,
}

use Fake::{Error, Int, List, Map, Nil, Strange, Text};

impl Value for Fake {
    fn open(self) -> Reply<Self> {
        match self {
            Nil => Reply::Nil,
            Int(number) => Reply::Int(number),
            Text(bytes) => Reply::Bytes(Bytes::from_static(bytes)),
            List(items) => Reply::List(items),
            Map(pairs) => Reply::Map(pairs),
            Error(text) => Reply::Error(text.to_owned()),
            Strange => Reply::Other,
        }
    }

    fn checked(self) -> std::result::Result<Self, String> {
        match self {
            Error(text) => Err(text.to_owned()),
            value => Ok(value),
        }
    }
}

impl Fake {
    /// As a server sends it.
    fn frame(&self) -> Vec<u8> {
        let of = |kind, count, parts: Vec<Vec<u8>>| {
            [format!("{kind}{count}\r\n").into_bytes(), parts.concat()].concat()
        };
        match self {
            Nil => b"$-1\r\n".to_vec(),
            Int(number) => format!(":{number}\r\n").into_bytes(),
            Text(text) => [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
            List(items) => of('*', items.len(), items.iter().map(Self::frame).collect()),
            Map(pairs) => of(
                '%',
                pairs.len(),
                pairs.iter().flat_map(|(name, value)| [name.frame(), value.frame()]).collect(),
            ),
            Error(text) => format!("-{text}\r\n").into_bytes(),
            Strange => b",1.5\r\n".to_vec(),
        }
    }
}

/// What a read finds, which is the same whoever takes the reply apart.
fn read_both<T: Debug>(reply: Fake, read: fn(ReadReply<Fake>) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let said = |found: &Result<Vec<T>>| {
        found.as_ref().map_or_else(|_| "an error".to_owned(), |found| format!("{found:?}"))
    };
    let by_frame = read(ReadReply::Frame(reply.frame().into()));
    let by_value = read(ReadReply::Value(reply));
    assert_eq!(said(&by_frame), said(&by_value));
    by_value
}

fn entries(reply: Fake) -> Result<Vec<Entry>> {
    read_both(reply, super::entries)
}

fn deliveries(reply: Fake) -> Result<Vec<Delivery>> {
    read_both(reply, super::deliveries)
}

fn pair(id: &'static [u8], fields: Fake) -> Fake {
    List(vec![Text(id), fields])
}

fn both_protocols(entries: Vec<Fake>) -> [Fake; 2] {
    [List(vec![List(vec![Text(b"s"), List(entries.clone())])]), Map(vec![(Text(b"s"), List(entries))])]
}

#[test]
fn fields_keep_order_duplicates_and_bytes() {
    let raw = List([&b"a"[..], b"1", b"a", b"2", b"", b"", b"\xff", b"\xfe"].map(Text).to_vec());
    for reply in both_protocols(vec![pair(b"1-0", raw)]) {
        let read = entries(reply.clone()).unwrap();
        let expected: Fields =
            [(&b"a"[..], &b"1"[..]), (b"a", b"2"), (b"", b""), (b"\xff", b"\xfe")].into_iter().collect();
        assert_eq!(read, [Entry::new(EntryId::new(1, 0), expected)]);
        assert_eq!(deliveries(reply).unwrap()[0].deliveries, 1);
    }
}

#[test]
fn nothing_has_many_forms() {
    for nothing in [Nil, List(vec![]), Map(vec![])].into_iter().chain(both_protocols(vec![])) {
        assert!(entries(nothing.clone()).unwrap().is_empty(), "{nothing:?}");
        assert!(history(nothing.clone()).unwrap().is_empty(), "{nothing:?}");
    }
}

#[test]
fn an_entry_that_is_gone_has_no_fields() {
    for reply in both_protocols(vec![pair(b"1-0", Nil), pair(b"2-0", List(vec![]))]) {
        let read = history(reply.clone()).unwrap();
        assert_eq!(read[0], (EntryId::new(1, 0), None));
        assert_eq!(read[1], (EntryId::new(2, 0), Some(Fields::default())));
        assert!(matches!(deliveries(reply), Err(Fault::Unreadable(_))), "new entries are there");
    }
}

#[test]
fn later_servers_add_to_an_entry() {
    let entry = List(vec![Text(b"1-0"), List(vec![]), Int(0), Int(0)]);
    assert_eq!(deliveries(List(vec![List(vec![Text(b"s"), List(vec![entry])])])).unwrap().len(), 1);
}

#[test]
fn g18_what_cannot_be_read_is_an_error_and_no_panic() {
    let bad = [
        Strange,
        Int(1),
        Text(b"s"),
        List(vec![Text(b"s")]),
        List(vec![List(vec![Text(b"s"), Int(1)])]),
        List(vec![List(vec![Text(b"s"), List(vec![Nil])])]),
        List(vec![List(vec![Text(b"s"), List(vec![pair(b"x-y", List(vec![]))])])]),
        List(vec![List(vec![Text(b"s"), List(vec![List(vec![Text(b"1-0")])])])]),
        Map(vec![(Text(b"s"), List(vec![pair(b"1-0", List(vec![Text(b"odd")]))]))]),
        Map(vec![(Text(b"s"), List(vec![pair(b"1-0", List(vec![Text(b"a"), Strange]))]))]),
        Map(vec![(Text(b"s"), List(vec![pair(b"1-0", Int(3))]))]),
    ];
    for reply in bad {
        assert!(matches!(entries(reply.clone()), Err(Fault::Unreadable(_))), "{reply:?}");
        assert!(matches!(history(reply.clone()), Err(Fault::Unreadable(_))), "{reply:?}");
    }
    assert!(matches!(entries(Error("NOGROUP gone")), Err(Fault::Server(text)) if text == "NOGROUP gone"));
}

#[test]
fn numbers_come_as_numbers_or_text() {
    assert_eq!(int(Int(-3)).unwrap(), -3);
    assert_eq!(int(Text(b"42")).unwrap(), 42);
    assert_eq!((count(Int(-3)).unwrap(), optional_count(Int(-3)).unwrap()), (0, None));
    assert_eq!(optional_count(Nil).unwrap(), None);
    let pending = List(vec![List(vec![Text(b"1-0"), Text(b"c"), Int(5), Int(7)])]);
    assert_eq!(delivery_counts(pending).unwrap(), [(EntryId::new(1, 0), 7)]);
}

#[cfg(feature = "redis-rs")]
#[test]
fn payload_bytes_move_out_of_the_drivers_value() {
    use redis::Value::{Array, BulkString};

    let payload = vec![7; 1000];
    let address = payload.as_ptr();
    let text = |text: &str| BulkString(text.as_bytes().to_vec());
    let entry = Array(vec![text("1-0"), Array(vec![text("f"), BulkString(payload)])]);
    let reply = Array(vec![Array(vec![text("s"), Array(vec![entry])])]);
    let read = super::entries(ReadReply::Value(reply)).unwrap();
    assert_eq!(read[0].fields.get("f").unwrap().as_ptr(), address);
}
