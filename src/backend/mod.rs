//! What a backend is: two traits, their requests and answers, and conveniences over them.

mod arc;
mod atomic;
mod capabilities;
mod checkpoint;
mod ext;
mod requests;
mod stream;

pub use atomic::{AtomicSettle, Settle, Settled};
pub use capabilities::StreamCapabilities;
pub use checkpoint::{
    Acquire, Acquired, Advance, Advanced, CheckpointBackend, Grant, Release, Renew, ResetCheckpoint,
};
pub use ext::{CheckpointBackendExt, StreamBackendExt};
pub use requests::{
    Ack, Acked, Append, Beat, Claim, Claimed, EnsureGroup, GroupState, Heartbeat, Inspect, Leave, Left,
    NewEntry, PendingEntry, Read, ReadGroup, ReadPending, Removal, StreamState, Token, Trim, TrimLimit,
};
pub use stream::StreamBackend;
