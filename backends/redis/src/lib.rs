//! The Redis backend of highwater: one value that is both a stream store and a checkpoint store.
//!
//! [`Redis`] implements [`StreamBackend`](highwater::backend::StreamBackend),
//! [`CheckpointBackend`](highwater::backend::CheckpointBackend) and, because it is both on one server,
//! [`AtomicSettle`](highwater::backend::AtomicSettle): acks and the advance of the checkpoint are then one atomic step. The
//! same type, connected to another server, serves as a checkpoint store alone.
//!
//! ```no_run
//! use highwater::{Subscription, backend::CheckpointBackend};
//! use highwater_redis::Redis;
//!
//! # async fn example() -> highwater::Result<()> {
//! let redis = Redis::connect("redis://127.0.0.1:6379").await?;
//! let checkpoint = redis.load(&Subscription::new("orders", "billing")?).await?;
//! println!("{checkpoint:?}");
//! # Ok(())
//! # }
//! ```
//!
//! It runs on Redis 6.2 and later and on Valkey. What a server can do is probed, never read from its version.
//!
//! # Features
//!
//! - `redis-rs` (default): the client of the `redis` crate. Its types appear nowhere in this crate's interface.
//! - `tls`: `rediss://`, by rustls, with the certificates that the machine trusts. Unless the process has chosen a rustls
//!   `CryptoProvider`, `ring` becomes its default.
//!
//! # What is kept where
//!
//! Everything beside a stream lies in the stream's own hash slot. For a stream `orders` and a group `billing`:
//!
//! | key | type | what |
//! | --- | --- | --- |
//! | `orders` | stream | the entries and the group, as the server keeps them |
//! | `highwater:{orders}:checkpoint:6:orders:billing` | hash | the checkpoint, readable by people |
//! | `highwater:{orders}:settled:6:orders:billing` | sorted set | what transactions settled above the watermark |
//! | `highwater:{orders}:groups:6:orders` | set | the groups that have a checkpoint on the stream |
//! | `highwater:{orders}:heartbeats:6:orders:billing` | hash | for each consumer its process and until when it counts as alive |
//!
//! Do not let the server evict them: with `maxmemory-policy` at `allkeys-*` it may drop checkpoints, and streams too. At the
//! memory limit checkpoints and heartbeats are still written, since they are small and free what is pending; appends are
//! refused.

mod backend;
mod checkpoint;
mod choice;
mod client;
mod commands;
mod effects;
mod error;
mod keys;
mod reply;
mod scripts;
mod settings;
mod settle;
mod stream;
mod transaction;

#[cfg(feature = "fred")]
pub use crate::client::Fred;
#[cfg(feature = "redis-rs")]
pub use crate::client::RedisRs;
pub use crate::{
    backend::Redis,
    choice::{Client, connect, connect_with},
    effects::Effects,
    keys::key_beside,
    settings::Settings,
};

#[cfg(not(any(feature = "redis-rs", feature = "fred")))]
compile_error!("highwater-redis needs a client: enable the feature `redis-rs` or `fred`");
