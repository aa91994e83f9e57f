//! What a backend is: two traits, their requests and answers, and conveniences over them.

mod arc;
mod atomic;
mod attempts;
mod capabilities;
mod checkpoint;
mod dead_letters;
mod ext;
mod group;
mod requests;
mod stream;
mod transactional;

pub use atomic::{AtomicSettle, Settle, Settled};
pub use attempts::{LoadAttempts, NoteAttempts};
pub use capabilities::StreamCapabilities;
pub use checkpoint::{
    Acquire, Acquired, Advance, Advanced, CheckpointBackend, Grant, Release, Renew, ResetCheckpoint,
};
pub use dead_letters::{BuryLetters, DeadKeys, Fate, NewLetter, Redrive, RedriveLetter, Redriven};
pub use ext::{CheckpointBackendExt, StreamBackendExt};
pub use group::{
    Ack, Acked, Beat, Claim, Claimed, EnsureGroup, Heartbeat, Leave, Left, PendingEntry, ReadGroup,
    ReadPending, Token,
};
pub use requests::{Append, GroupState, Inspect, NewEntry, Read, Removal, StreamState, Trim, TrimLimit};
pub use stream::StreamBackend;
pub use transactional::{Committed, Settlement, TransactionalCheckpoint};
