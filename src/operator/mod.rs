//! What an operator does to a subscription from outside: look at it, pause it, move it, skip an entry, redrive dead letters.
//!
//! [`Operator`] acts on the checkpoint and the group, [`Letters`] on the dead letters. Each operation is a compare-and-set with a
//! new epoch, refuses while somebody lives on the subscription unless it is forced, and may be repeated after any error.
//! `docs/OPERATIONS.md` says when to use which.

mod filter;
mod letters;
mod operate;
mod place;
mod redrive;
mod skip;
mod standing;

#[cfg(test)]
mod tests;

pub use filter::LetterFilter;
pub use letters::{FiledLetter, LetterPage, Letters};
pub use operate::Operator;
pub use place::SeekTo;
pub use redrive::{REDRIVEN_FROM, REDRIVEN_ID, RedriveReport};
pub use standing::Standing;
