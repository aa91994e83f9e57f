//! The commands that are no scripts, in any driver's form.

use std::time::Duration;

use highwater::{
    EntryId, StreamName, Subscription,
    backend::{NewEntry, Read, ReadGroup, ReadPending},
    clock::millis,
};

use crate::client::{Arguments, Command};

/// A blocking read waits no longer than this at a time, so that a dead connection is found. `BLOCK 0` would wait for ever.
pub(crate) const BLOCK_MAX: Duration = Duration::from_secs(30);

/// How many ids go into one command.
pub(crate) const IDS_MAX: usize = 1000;

/// The longest text of an id.
const ID_LEN: usize = 41;

/// What makes commands pleasant to write.
pub(crate) trait Build: Command {
    /// With one more argument.
    fn with(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.arg(argument.as_ref());
        self
    }

    /// With an id.
    fn id(mut self, id: EntryId) -> Self {
        self.push_id(id);
        self
    }

    /// With a number.
    fn number(mut self, number: u64) -> Self {
        self.push_number(number);
        self
    }
}

impl<C: Command> Build for C {}

/// What makes arguments pleasant to add.
pub(crate) trait Push: Arguments {
    /// Adds a number.
    fn push_number(&mut self, number: u64) {
        let mut text = [0; 20];
        let start = digits(&mut text, number);
        self.arg(&text[start..]);
    }

    /// Adds an id. There may be a thousand of them in a command: no allocation, and no formatter.
    fn push_id(&mut self, id: EntryId) {
        let mut text = [0; ID_LEN];
        let dash = digits(&mut text, id.seq) - 1;
        text[dash] = b'-';
        let start = digits(&mut text[..dash], id.ms);
        self.arg(&text[start..]);
    }
}

impl<A: Arguments> Push for A {}

/// Writes a number at the end of `text`, which is long enough, and says where it begins.
fn digits(text: &mut [u8], mut number: u64) -> usize {
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return start;
        }
    }
}

/// How long a read really blocks: `None` for not at all.
pub(crate) fn blocks(wait: Option<Duration>, max: Duration) -> Option<Duration> {
    let wait = wait.filter(|wait| !wait.is_zero())?;
    // Servers count in milliseconds, and take 0 for ever.
    Some(wait.clamp(Duration::from_millis(1), max))
}

pub(crate) fn xadd<C: Command>(stream: impl AsRef<[u8]>, entry: &NewEntry) -> C {
    let bytes: usize = entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    let (args, bytes) = (2 + 2 * entry.fields.len(), stream.as_ref().len() + ID_LEN + bytes);
    let mut command = C::sized("XADD", args, bytes).with(stream);
    command = match entry.id {
        Some(id) => command.id(id),
        None => command.with("*"),
    };
    for (name, value) in &entry.fields {
        command.shared(name);
        command.shared(value);
    }
    command
}

/// `block` as [`blocks`] says.
pub(crate) fn xread<C: Command>(request: &Read, block: Option<Duration>) -> C {
    let command = count_and_block(C::new("XREAD"), request.limit, block);
    command.with("STREAMS").with(request.stream.as_str()).id(request.after)
}

/// Waits until one of the streams has an entry behind its id, of which it answers with the first.
pub(crate) fn xread_first<C: Command>(ends: &[(StreamName, EntryId)], block: Duration) -> C {
    let mut command = count_and_block(C::new("XREAD"), 1, Some(block)).with("STREAMS");
    ends.iter().for_each(|(stream, _)| command.arg(stream.as_str().as_bytes()));
    ends.iter().for_each(|(_, last)| command.push_id(*last));
    command
}

/// The last entry of a stream.
pub(crate) fn xrevrange_last<C: Command>(stream: &StreamName) -> C {
    C::new("XREVRANGE").with(stream.as_str()).with("+").with("-").with("COUNT").number(1)
}

/// `block` as [`blocks`] says.
pub(crate) fn xreadgroup_new<C: Command>(request: &ReadGroup, block: Option<Duration>) -> C {
    let command: C = xreadgroup(&request.subscription, request.consumer.as_str());
    count_and_block(command, request.limit, block)
        .with("STREAMS")
        .with(request.subscription.stream.as_str())
        .with(">")
}

pub(crate) fn xreadgroup_history<C: Command>(request: &ReadPending) -> C {
    // The greatest id would read as `>`, and take new entries.
    debug_assert!(request.after < EntryId::MAX, "nothing is above the greatest id");
    let command: C = xreadgroup(&request.subscription, request.consumer.as_str());
    count_and_block(command, request.limit, None)
        .with("STREAMS")
        .with(request.subscription.stream.as_str())
        .id(request.after)
}

fn xreadgroup<C: Command>(subscription: &Subscription, consumer: &str) -> C {
    C::new("XREADGROUP").with("GROUP").with(subscription.group.as_str()).with(consumer)
}

fn count_and_block<C: Command>(command: C, limit: usize, block: Option<Duration>) -> C {
    let command = command.with("COUNT").number(count(limit));
    match block {
        Some(block) => command.with("BLOCK").number(millis(block)),
        None => command,
    }
}

/// What is pending for one consumer above an id.
pub(crate) fn xpending_of<C: Command>(request: &ReadPending) -> C {
    C::new("XPENDING")
        .with(request.subscription.stream.as_str())
        .with(request.subscription.group.as_str())
        .with(format!("({}", request.after))
        .with("+")
        .number(count(request.limit))
        .with(request.consumer.as_str())
}

/// `COUNT`, which servers read as a signed number and take 0 and less for all there is.
pub(crate) fn count(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX).clamp(1, 1 << 31)
}

/// Removes what is below an id.
pub(crate) fn xtrim_below<C: Command>(stream: &str, id: EntryId, approximate: bool) -> C {
    C::new("XTRIM").with(stream).with("MINID").with(how(approximate)).id(id)
}

/// Removes the oldest until `len` are left. Servers read that as a signed number.
pub(crate) fn xtrim_len<C: Command>(stream: &str, len: u64, approximate: bool) -> C {
    C::new("XTRIM")
        .with(stream)
        .with("MAXLEN")
        .with(how(approximate))
        .number(len.min(i64::MAX.unsigned_abs()))
}

fn how(approximate: bool) -> &'static str {
    if approximate { "~" } else { "=" }
}

/// Acks, by commands that a server is done with soon.
pub(crate) fn xacks<C: Command>(stream: &str, group: &str, ids: &[EntryId]) -> impl Iterator<Item = C> {
    ids.chunks(IDS_MAX).map(move |ids| {
        let bytes = stream.len() + group.len() + ids.len() * ID_LEN;
        let mut command = C::sized("XACK", 2 + ids.len(), bytes).with(stream).with(group);
        ids.iter().for_each(|&id| command.push_id(id));
        command
    })
}

pub(crate) fn xdel<C: Command>(stream: &str, ids: &[EntryId]) -> C {
    let mut command = C::new("XDEL").with(stream);
    for &id in ids {
        command.push_id(id);
    }
    command
}

#[cfg(test)]
mod tests {
    use highwater::ConsumerName;

    use super::*;

    struct Words(Vec<String>);

    impl Command for Words {
        fn new(name: &'static str) -> Self {
            Self(vec![name.to_owned()])
        }

        fn sized(name: &'static str, _: usize, _: usize) -> Self {
            Self::new(name)
        }
    }

    impl Arguments for Words {
        fn arg(&mut self, bytes: &[u8]) {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
        }
    }

    fn words(command: Words) -> String {
        command.0.join(" ")
    }

    #[test]
    fn neither_count_nor_block_is_ever_unlimited() {
        let subscription = Subscription::new("s", "g").unwrap();
        let consumer: ConsumerName = "c".parse().unwrap();
        let read = |limit, wait| {
            let request = ReadGroup::new(subscription.clone(), consumer.clone(), limit);
            words(xreadgroup_new(&request, blocks(Some(wait), BLOCK_MAX)))
        };
        assert_eq!(read(7, Duration::from_secs(1)), "XREADGROUP GROUP g c COUNT 7 BLOCK 1000 STREAMS s >");
        assert_eq!(read(0, Duration::ZERO), "XREADGROUP GROUP g c COUNT 1 STREAMS s >");
        assert_eq!(
            read(usize::MAX, Duration::MAX),
            "XREADGROUP GROUP g c COUNT 2147483648 BLOCK 30000 STREAMS s >"
        );
        assert_eq!(read(1, Duration::from_nanos(1)), "XREADGROUP GROUP g c COUNT 1 BLOCK 1 STREAMS s >");
    }

    #[test]
    fn the_greatest_ids_and_numbers_fit() {
        let read = Read::new(StreamName::new("s").unwrap(), EntryId::MAX, 1);
        assert_eq!(
            words(xread(&read, None)),
            "XREAD COUNT 1 STREAMS s 18446744073709551615-18446744073709551615"
        );
        assert_eq!(words(xtrim_len("s", u64::MAX, true)), "XTRIM s MAXLEN ~ 9223372036854775807");
    }
}
