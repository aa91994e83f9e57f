//! Ids: reading, writing, order, and the steps to the next and the one before.

use super::Source;
use crate::EntryId;

/// Any bytes are an id or are refused, as a slow reading says; and any two ids keep the laws of their order.
pub fn entry_id(data: &[u8]) {
    let read = EntryId::from_bytes(data);
    assert_eq!(read, read_slowly(data), "{}", data.escape_ascii());
    if let Ok(text) = std::str::from_utf8(data) {
        assert_eq!(text.parse::<EntryId>().ok(), read, "{text:?}");
    }
    let mut source = Source::new(data);
    let [a, b] = [source.id(), source.id()];
    assert_eq!(a.cmp(&b), number(a).cmp(&number(b)), "{a} and {b}");
    for id in [Some(a), Some(b), read].into_iter().flatten() {
        assert_eq!(id.to_string().parse::<EntryId>().ok(), Some(id));
        assert_eq!(EntryId::from_bytes(id.to_string().as_bytes()), Some(id));
        assert_eq!(id.next().map(number), number(id).checked_add(1));
        assert_eq!(id.prev().map(number), number(id).checked_sub(1));
    }
}

/// Where an id stands among all that can exist.
fn number(id: EntryId) -> u128 {
    u128::from(id.ms) << 64 | u128::from(id.seq)
}

fn read_slowly(data: &[u8]) -> Option<EntryId> {
    let text = std::str::from_utf8(data).ok()?;
    let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
    let decimal = |digits: &str| {
        let plain = (1..=20).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit());
        u64::try_from(digits.parse::<u128>().ok().filter(|_| plain)?).ok()
    };
    Some(EntryId::new(decimal(ms)?, decimal(seq)?))
}
