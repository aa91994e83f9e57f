//! Choices out of bytes.

use crate::EntryId;

/// Takes choices from bytes. When they have ended, each choice is the first there is.
#[derive(Debug)]
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// Choices from these.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether the bytes have ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that are left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    /// A number below this one, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// One chance in so many.
    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == many - 1
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Any number, often one at an edge.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..128 => u64::from(small % 8),
            near @ 128..192 => u64::MAX - u64::from(near % 4),
            _ => self.bytes(8).iter().fold(0, |number, &byte| number << 8 | u64::from(byte)),
        }
    }

    /// Any id.
    pub fn id(&mut self) -> EntryId {
        EntryId::new(self.number(), self.number())
    }
}
