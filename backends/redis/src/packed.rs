//! The arguments of a script, packed into one.

use bytes::Bytes;

use crate::client::Arguments;

/// The first byte of a list with its length in four more.
const LIST: u8 = 0xdd;
/// The same of a text, and with its length in two more.
const TEXT: u8 = 0xdb;
const TEXT_16: u8 = 0xda;
/// The first byte of a text of up to 31 bytes, which has its length in it.
const SHORT_TEXT: u8 = 0xa0;

/// A list of texts in the form of [MessagePack](https://github.com/msgpack/msgpack/blob/master/spec.md). A settle has a
/// thousand ids: clients spend less on them in this form than on as many arguments, and the server no more.
pub(crate) struct Packed {
    bytes: Vec<u8>,
    count: u32,
}

impl Packed {
    /// Puts them together.
    pub(crate) fn build(push: impl FnOnce(&mut Self)) -> Bytes {
        let mut packed = Self { bytes: Vec::with_capacity(256), count: 0 };
        packed.bytes.extend([LIST, 0, 0, 0, 0]);
        push(&mut packed);
        packed.bytes[1..5].copy_from_slice(&packed.count.to_be_bytes());
        packed.bytes.into()
    }
}

impl Arguments for Packed {
    fn arg(&mut self, text: &[u8]) {
        self.count += 1;
        match (text.len(), u16::try_from(text.len())) {
            (len @ ..32, _) => self.bytes.push(SHORT_TEXT | len as u8),
            (_, Ok(len)) => {
                self.bytes.push(TEXT_16);
                self.bytes.extend(len.to_be_bytes());
            }
            (len, Err(_)) => {
                self.bytes.push(TEXT);
                // Servers take no argument of more than 512 MB.
                self.bytes.extend((len as u32).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_says_how_long_it_is() {
        let built = |len: usize| Packed::build(|packed| packed.arg(&vec![b'x'; len]));
        for (len, head) in [
            (0, &[0xa0][..]),
            (31, &[0xbf]),
            (32, &[0xda, 0, 32]),
            (65_535, &[0xda, 0xff, 0xff]),
            (65_536, &[0xdb, 0, 1, 0, 0]),
        ] {
            let expected = [&[0xdd, 0, 0, 0, 1], head, &vec![b'x'; len]].concat();
            assert_eq!(built(len), expected, "{len}");
        }
        let many = Packed::build(|packed| (0..300).for_each(|_| packed.arg(b"x")));
        assert_eq!(many[..5], [0xdd, 0, 0, 1, 44]);
    }
}
