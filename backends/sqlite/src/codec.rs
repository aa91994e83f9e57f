//! How ids and fields are stored.
//!
//! An id is two `i64`, each the unsigned number with its highest bit flipped: their order is that of the ids, from `0` to
//! `u64::MAX`. The fields of an entry are one blob: the number of fields, then for each the length of the name, the name,
//! the length of the value, the value. Numbers are LEB128.

use std::fmt::Write;

use bytes::{Buf, Bytes};
use highwater::{EntryId, Error, ErrorKind, Fields, Result};

const SIGN: u64 = 1 << 63;

/// The stored form of an id.
pub(crate) fn stored(id: EntryId) -> (i64, i64) {
    (flipped(id.ms), flipped(id.seq))
}

/// The id of a stored form.
pub(crate) fn id(ms: i64, seq: i64) -> EntryId {
    EntryId::new(unflipped(ms), unflipped(seq))
}

/// A number of 64 bits in a form that has its order.
pub(crate) fn flipped(number: u64) -> i64 {
    (number ^ SIGN).cast_signed()
}

/// The number of that form.
pub(crate) fn unflipped(stored: i64) -> u64 {
    stored.cast_unsigned() ^ SIGN
}

/// Ids as the JSON that a statement unpacks with `json_each`: one parameter for any number of them.
pub(crate) fn json(ids: &[EntryId]) -> String {
    let mut json = String::with_capacity(ids.len() * 44 + 2);
    json.push('[');
    for (i, id) in ids.iter().enumerate() {
        let (comma, (ms, seq)) = (if i > 0 { "," } else { "" }, stored(*id));
        write!(json, "{comma}[{ms},{seq}]").expect("writing to a string does not fail");
    }
    json.push(']');
    json
}

/// A stored count. None is ever negative.
pub(crate) fn count(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}

/// The stored form of a count, time or limit; beyond what SQLite can hold it is as large as can be.
pub(crate) fn bounded(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The stored form of fields.
pub(crate) fn encode(fields: &Fields) -> Vec<u8> {
    let mut blob = Vec::with_capacity(fields.size() + 4 * fields.len() + 2);
    put_number(&mut blob, fields.len());
    for (name, value) in fields {
        for part in [name, value] {
            put_number(&mut blob, part.len());
            blob.extend_from_slice(part);
        }
    }
    blob
}

/// The fields of a stored form. They share its bytes.
pub(crate) fn decode(mut blob: Bytes) -> Result<Fields> {
    read_fields(&mut blob).filter(|_| blob.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the fields of an entry cannot be read: restore the database file")
    })
}

fn read_fields(blob: &mut Bytes) -> Option<Fields> {
    let count = take_number(blob)?;
    // Each field takes two bytes or more, so a count that lies cannot make us reserve more than there is.
    let mut fields = Vec::with_capacity(count.min(blob.len() / 2));
    for _ in 0..count {
        fields.push((take_bytes(blob)?, take_bytes(blob)?));
    }
    Some(fields.into())
}

fn take_bytes(blob: &mut Bytes) -> Option<Bytes> {
    let len = take_number(blob)?;
    (len <= blob.len()).then(|| blob.split_to(len))
}

fn put_number(blob: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        blob.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    blob.push(number as u8);
}

fn take_number(blob: &mut Bytes) -> Option<usize> {
    let mut number = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = blob.has_remaining().then(|| blob.get_u8())?;
        let bits = usize::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_survive(fields: Vec<(Vec<u8>, Vec<u8>)>) {
            let fields: Fields = fields.into_iter().collect();
            prop_assert_eq!(decode(encode(&fields).into())?, fields);
        }

        #[test]
        fn garbage_never_panics_and_a_cut_is_found(mut blob: Vec<u8>, name: Vec<u8>, cut in 1usize..9) {
            let _ = decode(blob.clone().into());
            let whole = encode(&[(name, std::mem::take(&mut blob))].into_iter().collect());
            let short = whole[..whole.len().saturating_sub(cut)].to_vec();
            prop_assert_eq!(decode(short.into()).unwrap_err().kind(), ErrorKind::Corrupt);
        }

        #[test]
        fn the_order_of_ids_is_that_of_their_stored_form(a: (u64, u64), b: (u64, u64)) {
            let (a, b) = (EntryId::new(a.0, a.1), EntryId::new(b.0, b.1));
            prop_assert_eq!(stored(a).cmp(&stored(b)), a.cmp(&b));
            prop_assert_eq!(id(stored(a).0, stored(a).1), a);
        }
    }

    #[test]
    fn the_extremes_of_an_id_are_the_extremes_of_its_stored_form() {
        assert_eq!(stored(EntryId::ZERO), (i64::MIN, i64::MIN));
        assert_eq!(stored(EntryId::MAX), (i64::MAX, i64::MAX));
        let around = [i64::MAX as u64, i64::MAX as u64 + 1].map(|n| stored(EntryId::new(n, n)));
        assert_eq!(around, [(-1, -1), (0, 0)]);
    }

    #[test]
    fn long_values_need_long_lengths() {
        for len in [0, 127, 128, 16_383, 16_384, 3_000_000] {
            let fields: Fields = [("name", vec![7u8; len])].into_iter().collect();
            assert_eq!(decode(encode(&fields).into()).unwrap(), fields);
        }
    }

    #[test]
    fn a_length_that_overflows_is_refused() {
        let mut blob = vec![1];
        blob.extend([0xff; 9]);
        blob.push(0x7f);
        assert!(decode(blob.into()).is_err());
    }
}
