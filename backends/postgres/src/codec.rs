//! How values are written into statements, and ids into columns.
//!
//! Values are part of the text of a statement. Parameters would need two round trips where a statement is not prepared
//! before, and those that drivers prepare are lost behind a pooler such as PgBouncer. What is prepared here is so by name, in SQL.

use std::{fmt::Write, time::Duration};

use highwater::{EntryId, clock::millis};

/// A lease of more than this is one for ever: a century.
const TTL_MAX: u64 = 100 * 365 * 24 * 3600 * 1000;

/// Text as a literal, whatever the server thinks of backslashes.
pub(crate) fn text(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 3);
    literal.push_str("E'");
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            literal.push(c);
        }
        literal.push(c);
    }
    literal.push('\'');
    literal
}

/// Text as a literal, or `NULL`.
pub(crate) fn optional(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL::text".into(), text)
}

/// A name as a quoted identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An id as a literal, whatever the server thinks of backslashes.
pub(crate) fn bytes(id: EntryId) -> String {
    format!("E'\\\\x{}'::bytea", hex(id))
}

/// An id as a literal; empty bytes if there is none.
pub(crate) fn optional_bytes(id: Option<EntryId>) -> String {
    id.map_or_else(|| "''::bytea".into(), bytes)
}

/// Ids as the literal of an array.
pub(crate) fn array(ids: &[EntryId]) -> String {
    let mut literal = String::with_capacity(ids.len() * 40 + 16);
    literal.push_str("E'{");
    for (i, id) in ids.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        // A backslash for the array, and each of both for the literal.
        write!(literal, "{comma}\\\\\\\\x{}", hex(*id)).expect("writing to a string does not fail");
    }
    literal.push_str("}'::bytea[]");
    literal
}

/// A number as what a `bigint` can hold.
pub(crate) fn bounded(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A time to live in milliseconds, as an interval can hold it.
pub(crate) fn interval(ttl: Duration) -> String {
    format!("interval '1 millisecond' * {}", millis(ttl).min(TTL_MAX))
}

/// The hexadecimal form of an id in a column.
pub(crate) fn hex(id: EntryId) -> String {
    format!("{:016x}{:016x}", id.ms, id.seq)
}

/// The id of a hexadecimal form.
pub(crate) fn unhex(hex: &str) -> Option<EntryId> {
    let digits = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (ms, seq) = hex.split_at_checked(16).filter(|_| digits)?;
    let part = |digits| u64::from_str_radix(digits, 16).ok();
    Some(EntryId::new(part(ms)?, part(seq)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn g3_the_order_of_ids_is_that_of_their_bytes(a: (u64, u64), b: (u64, u64)) {
            let (a, b) = (EntryId::new(a.0, a.1), EntryId::new(b.0, b.1));
            prop_assert_eq!(hex(a).cmp(&hex(b)), a.cmp(&b));
            prop_assert_eq!(unhex(&hex(a)), Some(a));
        }

        #[test]
        fn g18_garbage_is_no_id(garbage in ".{0,40}") {
            if let Some(id) = unhex(&garbage) {
                prop_assert_eq!(hex(id), garbage.to_lowercase());
            }
        }

        #[test]
        fn g18_a_literal_ends_where_it_should(value in "[a'\\\\\"ä]{0,12}") {
            let literal = text(&value);
            let inner = literal.strip_prefix("E'").and_then(|l| l.strip_suffix('\'')).unwrap();
            let mut read = String::new();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                read.push(c);
                if matches!(c, '\'' | '\\') {
                    prop_assert_eq!(chars.next(), Some(c), "doubled: {}", literal);
                }
            }
            prop_assert_eq!(read, value);
        }
    }

    #[test]
    fn literals() {
        assert_eq!(array(&[EntryId::new(1, 2)]), r"E'{\\\\x00000000000000010000000000000002}'::bytea[]");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!((bounded(7), bounded(u64::MAX)), (7, i64::MAX));
        assert_eq!(interval(Duration::MAX), interval(Duration::from_millis(TTL_MAX)));
        assert_eq!((optional(None).as_str(), optional(Some("'")).as_str()), ("NULL::text", "E''''"));
    }
}
