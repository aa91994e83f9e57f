//! The wire form of a reply: where it ends, and the entries in it.
//!
//! A driver makes a value of each name, id and payload. A read brings thousands of them in a form that is always the same, so
//! they are taken from the bytes as they came, which is a tenth of the work.
//!
//! [The form](https://redis.io/docs/latest/develop/reference/protocol-spec/).

use std::ops::Range;

use bytes::Bytes;
use highwater::{EntryId, Fields};

use super::Fault;

/// What is kept of a reply is kept in pieces of this size, and one for each text that is longer. Whoever keeps one entry for
/// long keeps no more than its piece.
const PIECE: usize = 16 * 1024;

const MALFORMED: Fault = Fault::Unreadable("a reply in the form of the protocol was expected");

/// Looks for the end of a reply whose bytes come in pieces. It goes on with the value that was not complete.
#[derive(Debug)]
pub(super) struct Scan {
    /// Up to here all is known, which may be past what has come.
    at: usize,
    /// How many values are missing.
    missing: usize,
}

impl Scan {
    pub(super) fn new() -> Self {
        Self { at: 0, missing: 1 }
    }

    /// How long the reply is, once all of it is in `bytes`, which begin with it.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        while self.missing > 0 {
            let Some((head, next)) = Head::read(bytes, self.at)? else { return Ok(None) };
            self.missing -= 1;
            self.at = match head {
                Head::Text(len) => after(next, len)?,
                Head::Values(count) => {
                    self.missing = self.missing.checked_add(count).ok_or(MALFORMED)?;
                    next
                }
                Head::Nil | Head::Other => next,
            };
        }
        Ok((self.at <= bytes.len()).then_some(self.at))
    }
}

/// Behind so many bytes and the end of their line.
fn after(at: usize, len: usize) -> Result<usize, Fault> {
    at.checked_add(len).and_then(|end| end.checked_add(2)).ok_or(MALFORMED)
}

/// The first line of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Nil,
    /// So many bytes follow, and the end of a line.
    Text(usize),
    /// So many values follow.
    Values(usize),
    /// A value that is all in its line.
    Other,
}

impl Head {
    /// The line that begins there and where the next one does, once it is complete.
    fn read(bytes: &[u8], at: usize) -> Result<Option<(Self, usize)>, Fault> {
        let Some((&kind, line)) = bytes.get(at..).and_then(<[u8]>::split_first) else { return Ok(None) };
        if matches!(kind, b'+' | b'-' | b':' | b'#' | b',' | b'(' | b'_') {
            let end = line.iter().position(|&byte| byte == b'\n');
            let head = if kind == b'_' { Self::Nil } else { Self::Other };
            return Ok(end.map(|end| (head, at + end + 2)));
        }
        let (mut number, mut digits, mut negative) = (0_usize, 0, false);
        for &byte in line {
            match byte {
                b'0'..=b'9' if digits < 15 => number = number * 10 + usize::from(byte - b'0'),
                b'-' if digits == 0 => negative = true,
                b'\r' if digits > 0 => {
                    let head = match kind {
                        _ if negative => Self::Nil,
                        b'$' | b'=' | b'!' => Self::Text(number),
                        b'*' | b'~' | b'>' => Self::Values(number),
                        b'%' => Self::Values(number * 2),
                        _ => return Err(MALFORMED),
                    };
                    let end = at + digits + usize::from(negative) + 3;
                    return Ok((end <= bytes.len()).then_some((head, end)));
                }
                _ => return Err(MALFORMED),
            }
            digits += usize::from(byte != b'-');
        }
        Ok(None)
    }
}

/// What is made of the entries in a complete reply to a read of one stream.
pub(crate) fn entries<T>(frame: &[u8], make: impl Fn(EntryId, Fields) -> T) -> Result<Vec<T>, Fault> {
    let mut cursor = Cursor { frame, at: 0, piece: Bytes::new(), piece_at: 0 };
    match (frame.first(), cursor.head()?) {
        (_, Head::Nil) | (Some(b'*' | b'%'), Head::Values(0)) => return Ok(Vec::new()),
        // A list of pairs, or a map.
        (Some(b'*'), Head::Values(1)) if cursor.list()? == 2 => {}
        (Some(b'%'), Head::Values(2)) => {}
        _ => return Err(MALFORMED),
    }
    cursor.text()?;
    let count = cursor.list()?;
    // Each takes more than this, whatever the count says.
    let mut entries = Vec::with_capacity(count.min(frame.len() / 16));
    for _ in 0..count {
        let (id, fields) = cursor.entry()?;
        entries.push(make(id, fields));
    }
    Ok(entries)
}

/// Goes through a complete reply.
struct Cursor<'a> {
    frame: &'a [u8],
    at: usize,
    /// A copy of what begins there.
    piece: Bytes,
    piece_at: usize,
}

impl Cursor<'_> {
    fn head(&mut self) -> Result<Head, Fault> {
        let (head, next) = Head::read(self.frame, self.at)?.ok_or(MALFORMED)?;
        self.at = next;
        Ok(head)
    }

    /// How long the list is that begins here.
    fn list(&mut self) -> Result<usize, Fault> {
        match (self.frame.get(self.at), self.head()?) {
            (Some(b'*'), Head::Values(count)) => Ok(count),
            _ => Err(MALFORMED),
        }
    }

    fn text(&mut self) -> Result<Range<usize>, Fault> {
        let Head::Text(len) = self.head()? else { return Err(MALFORMED) };
        let start = self.at;
        self.at = after(start, len)?;
        if self.at > self.frame.len() { Err(MALFORMED) } else { Ok(start..start + len) }
    }

    fn bytes(&mut self) -> Result<Bytes, Fault> {
        let text = self.text()?;
        if text.end > self.piece_at + self.piece.len() {
            let end = text.end.max(self.frame.len().min(text.start + PIECE));
            (self.piece, self.piece_at) = (Bytes::copy_from_slice(&self.frame[text.start..end]), text.start);
        }
        Ok(self.piece.slice(text.start - self.piece_at..text.end - self.piece_at))
    }

    /// An id and its fields. What follows, in later servers, is of no interest.
    fn entry(&mut self) -> Result<(EntryId, Fields), Fault> {
        let parts = self.list()?;
        let id =
            EntryId::from_bytes(&self.frame[self.text()?]).ok_or(Fault::Unreadable("an id was expected"))?;
        let words = self.list()?;
        // Each word takes more than a byte, whatever the count says.
        if parts < 2 || words % 2 == 1 || words > self.frame.len() {
            return Err(MALFORMED);
        }
        let mut fault = None;
        let mut next = || {
            self.bytes().unwrap_or_else(|error| {
                fault = Some(error);
                Bytes::new()
            })
        };
        // A mapped range knows its length, so the pairs are collected in place.
        let fields = (0..words / 2).map(|_| (next(), next())).collect();
        if let Some(fault) = fault {
            return Err(fault);
        }
        for _ in 2..parts {
            self.skip()?;
        }
        Ok((id, fields))
    }

    fn skip(&mut self) -> Result<(), Fault> {
        let len = Scan::new().end(&self.frame[self.at..])?.ok_or(MALFORMED)?;
        self.at += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[&[u8]] = &[
        b"*-1\r\n",
        b"*0\r\n",
        b"_\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"+OK\r\n",
        b":-12\r\n",
        b"*2\r\n$2\r\n\r\n\r\n%1\r\n+a\r\n*1\r\n#t\r\n",
        b"%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nf\r\n$12\r\n12345\r\n67890\r\n",
        b"*3\r\n,1.5\r\n(123456789012345678901234567890\r\n=7\r\ntxt:abc\r\n",
    ];

    #[test]
    fn a_reply_ends_where_it_ends_in_whatever_pieces_it_comes() {
        for reply in REPLIES {
            let more = [reply, &b"*1\r\n:1\r\n"[..]].concat();
            for piece in 1..=more.len() {
                let mut scan = Scan::new();
                let seen = (piece..more.len() + piece).step_by(piece).map(|len| len.min(more.len()));
                let mut ends = seen.map(|len| (len, scan.end(&more[..len]).unwrap()));
                let (len, end) = ends.find(|(_, end)| end.is_some()).unwrap();
                assert_eq!(end, Some(reply.len()), "{reply:?} in pieces of {piece}");
                assert!(len - piece < reply.len(), "it was known before");
            }
        }
    }

    #[test]
    fn g18_what_is_no_reply_is_an_error_and_no_panic() {
        let huge = b"*999999999999999\r\n";
        for bytes in [&b"x\r\n"[..], b"*x\r\n", b"*\r\n", b"$9999999999999999\r\n", b"*1-\r\n", b"|1\r\n"] {
            assert!(Scan::new().end(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(Scan::new().end(huge).unwrap(), None);
        let whole = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
        assert_eq!(entries(whole, |id, _| id).unwrap(), [EntryId::new(1, 0)]);
        for cut in 0..whole.len() {
            assert!(entries(&whole[..cut], |id, _| id).is_err(), "{cut}");
        }
        assert!(entries(huge, |id, _| id).is_err());
        let wide = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*99999999999998\r\n";
        assert!(entries(wide, |id, _| id).is_err());
    }

    #[test]
    fn g17_an_entry_keeps_little_of_its_reply() {
        let values = [10, 10, PIECE - 60, 10, 3 * PIECE, 10].map(|len| vec![b'v'; len]);
        let text = |text: &[u8]| [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat();
        let entry = |value| [&b"*2\r\n"[..], &text(b"1-0"), b"*2\r\n", &text(b"f"), &text(value)].concat();
        let all = values.iter().flat_map(|value| entry(value)).collect::<Vec<_>>();
        let frame = [&b"*1\r\n*2\r\n"[..], &text(b"s"), b"*6\r\n", &all].concat();
        let found = entries(&frame, |_, fields| fields.get("f").unwrap().clone()).unwrap();
        assert!(found.iter().eq(&values));
        let end = |at: usize| found[at].as_ptr() as usize + found[at].len();
        assert_eq!(found[1].as_ptr() as usize - end(0), entry(b"").len() + 1, "small ones share a piece");
        assert!(
            found.iter().all(|value| !frame.as_ptr_range().contains(&value.as_ptr())),
            "nothing keeps the reply"
        );
    }
}
