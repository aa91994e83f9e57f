//! The names of the keys beside a stream, all in the stream's hash slot.
//!
//! A cluster maps a key to a slot by its *hash tag*: what stands between the first `{` and the first `}` behind it, if that is
//! not empty, and otherwise the whole key. Our keys begin `highwater:{tag}:`, where the tag has the slot of the stream:
//!
//! 1. The stream has a hash tag: the same.
//! 2. It has none and holds no `}`: its whole name.
//! 3. It has none but holds a `}`, such as `a{}b` or `}{`. In braces it would end too early, so the tag is the smallest
//!    natural number, in decimal, that falls into the stream's slot.
//!
//! Behind the tag come kind, length of the stream's name, stream and group. The length is what keeps two pairs of stream and
//! group from sharing a key, whatever characters they hold.

use std::{borrow::Cow, sync::OnceLock};

use highwater::{StreamName, Subscription};

/// How many there are.
pub(crate) const SLOTS: u16 = 16384;

/// What the names of our keys begin with. No effect may touch them.
pub(crate) const OURS: &str = "highwater:{";

/// A key for [effects](crate::Effects) that lies in the hash slot of a stream, whatever the stream is called.
///
/// ```
/// use highwater::StreamName;
/// use highwater_redis::key_beside;
///
/// assert_eq!(key_beside(&StreamName::new("orders")?, "totals"), "{orders}:totals");
/// # Ok::<(), highwater::Error>(())
/// ```
#[must_use]
pub fn key_beside(stream: &StreamName, name: &str) -> String {
    format!("{{{}}}:{name}", tag(stream))
}

/// Whether a key lies in the slot of a stream.
pub(crate) fn is_beside(stream: &StreamName, key: &str) -> bool {
    slot(key) == slot(stream.as_str())
}

/// The key of a subscription's checkpoint.
pub(crate) fn checkpoint(subscription: &Subscription) -> String {
    of_group("checkpoint", subscription)
}

/// The key of a group's heartbeats.
pub(crate) fn heartbeats(subscription: &Subscription) -> String {
    of_group("heartbeats", subscription)
}

/// The key of what transactions have settled above the watermark.
pub(crate) fn settled(subscription: &Subscription) -> String {
    of_group("settled", subscription)
}

/// The key of what is remembered of attempts.
pub(crate) fn attempts(subscription: &Subscription) -> String {
    of_group("attempts", subscription)
}

/// The key of the letters of entries, in one stream of dead letters.
pub(crate) fn letters(subscription: &Subscription, letters: &StreamName) -> String {
    of_letters("letters", subscription, letters)
}

/// The key of the letters that have a key, in one stream of dead letters.
pub(crate) fn dead_keys(subscription: &Subscription, letters: &StreamName) -> String {
    of_letters("dead-keys", subscription, letters)
}

/// What the keys of the heartbeats of all groups of a stream begin with; the group follows.
pub(crate) fn heartbeats_prefix(stream: &StreamName) -> String {
    of_stream("heartbeats", stream) + ":"
}

/// The key of the set of groups that have a checkpoint on a stream.
pub(crate) fn groups(stream: &StreamName) -> String {
    of_stream("groups", stream)
}

/// The key of the checkpoint of a group on a stream.
fn of_group(kind: &str, subscription: &Subscription) -> String {
    format!("{}:{}", of_stream(kind, &subscription.stream), subscription.group)
}

fn of_letters(kind: &str, subscription: &Subscription, letters: &StreamName) -> String {
    let Subscription { stream, group } = subscription;
    format!("{}:{}:{group}:{letters}", of_stream(kind, stream), group.as_str().len())
}

fn of_stream(kind: &str, stream: &StreamName) -> String {
    let name = stream.as_str();
    format!("{OURS}{}}}:{kind}:{}:{name}", tag(stream), name.len())
}

/// What stands in braces where the key is to have the slot of a stream.
fn tag(stream: &StreamName) -> Cow<'_, str> {
    let name = stream.as_str();
    match hash_tag(name) {
        Some(tag) => tag.into(),
        None if !name.contains('}') => name.into(),
        None => number_in_slot(slot(name)).to_string().into(),
    }
}

/// The hash tag of a key, if it has one.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, behind) = key.split_once('{')?;
    let (tag, _) = behind.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// The slot of a key, as a cluster computes it.
pub(crate) fn slot(key: &str) -> u16 {
    crc16(hash_tag(key).unwrap_or(key).as_bytes()) % SLOTS
}

/// The smallest natural number whose decimal digits fall into a slot.
fn number_in_slot(slot: u16) -> u32 {
    static NUMBERS: OnceLock<Vec<u32>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| {
        const NONE: u32 = u32::MAX;
        let mut numbers = vec![NONE; usize::from(SLOTS)];
        let mut missing = numbers.len();
        for number in 0..NONE {
            let slot = crc16(number.to_string().as_bytes()) % SLOTS;
            if numbers[usize::from(slot)] == NONE {
                numbers[usize::from(slot)] = number;
                missing -= 1;
            }
            if missing == 0 {
                break;
            }
        }
        numbers
    });
    numbers[usize::from(slot)]
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const WEIRD: [&str; 17] = [
        "orders", "{orders}", "a{b}c", "a{}b", "{x", "x}", "}{", "{}", "}", "{", "{}{a}", "a{b{c}d",
        "{a}{b}", "ä{ö}ü", "a:b", "1:a", "}}{{",
    ];

    fn every_key(stream: &str, group: &str) -> [String; 7] {
        let subscription = Subscription::new(stream, group).unwrap();
        let into = StreamName::new("d:e").unwrap();
        [
            checkpoint(&subscription),
            heartbeats(&subscription),
            groups(&subscription.stream),
            settled(&subscription),
            attempts(&subscription),
            letters(&subscription, &into),
            dead_keys(&subscription, &into),
        ]
    }

    #[test]
    fn the_checksum_is_the_servers() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!((slot("foo"), slot("{user1000}.following"), slot("foo{}{bar}")), (12182, 3443, 8363));
    }

    #[test]
    fn every_key_lies_in_the_slot_of_its_stream() {
        let generated = (0..3000u32).map(|n| format!("}}{n}{{}}"));
        for stream in WEIRD.map(String::from).into_iter().chain(generated) {
            for key in every_key(&stream, "g}{") {
                assert_eq!(slot(&key), slot(&stream), "{key} beside {stream}");
            }
            let name = StreamName::new(&*stream).unwrap();
            assert!(is_beside(&name, &key_beside(&name, "{}totals{x}")), "{stream}");
        }
    }

    #[test]
    fn keys_are_readable_and_stable() {
        assert_eq!(
            every_key("orders", "billing"),
            [
                "highwater:{orders}:checkpoint:6:orders:billing",
                "highwater:{orders}:heartbeats:6:orders:billing",
                "highwater:{orders}:groups:6:orders",
                "highwater:{orders}:settled:6:orders:billing",
                "highwater:{orders}:attempts:6:orders:billing",
                "highwater:{orders}:letters:6:orders:7:billing:d:e",
                "highwater:{orders}:dead-keys:6:orders:7:billing:d:e",
            ]
        );
        assert_eq!(
            heartbeats(&Subscription::new("s", "g").unwrap()),
            heartbeats_prefix(&StreamName::new("s").unwrap()) + "g"
        );
    }

    #[test]
    fn no_two_subscriptions_share_a_key() {
        let names = WEIRD.iter().copied().chain([
            "orders:b",
            "b",
            "orders:groups",
            "6:orders",
            "s:t",
            "s",
            "t:u",
            "u",
        ]);
        let mut seen = HashSet::new();
        for stream in names.clone() {
            for group in names.clone() {
                let [checkpoint, heartbeats, _, settled, attempts, ..] = every_key(stream, group);
                for key in [checkpoint, heartbeats, settled, attempts] {
                    assert!(seen.insert(key), "{stream} {group}");
                }
                let subscription = Subscription::new(stream, group).unwrap();
                for into in names.clone().map(|into| StreamName::new(into).unwrap()) {
                    assert!(seen.insert(letters(&subscription, &into)), "{stream} {group} {into}");
                    assert!(seen.insert(dead_keys(&subscription, &into)), "{stream} {group} {into}");
                }
            }
            assert!(seen.insert(groups(&StreamName::new(stream).unwrap())), "{stream}");
        }
    }
}
