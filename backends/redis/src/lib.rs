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
//! - `redis-rs` (default): the client of the `redis` crate.
//! - `fred`: the client of the `fred` crate.
//! - `tls`: `rediss://`, by rustls, with the certificates that the machine trusts. Unless the process has chosen a rustls
//!   `CryptoProvider`, `ring` becomes its default.
//!
//! # Which client
//!
//! Both run the same commands and scripts, on the same keys, and pass the same tests; the types of neither appear in this
//! crate's interface. [`Redis`] names its client in its type, by default the first that is enabled. [`connect`] takes it from a
//! setting. What differs:
//!
//! | | `redis-rs` | `fred` |
//! | --- | --- | --- |
//! | the crate | `redis` 1.8, released often | `fred` 10.1 of February 2025, its latest |
//! | a payload that is read | is copied once, out of the buffer of the socket | is a slice of it, so one entry that is kept keeps all that came in the same reply |
//! | a payload that is appended | is copied into the command, and from there to the socket | is copied to the socket |
//! | a password that the server does not ask for | is refused | is not noticed |
//!
//! # One server, Sentinel, or a cluster
//!
//! The URL says which: see [`Settings::url`]. The way to the right server is this crate's own, the same for every client:
//!
//! - A **sentinel** is asked for the master each time a connection is made, and the answer is checked with the server. A
//!   connection to what became a replica is given up.
//! - In a **cluster** each stream lies on one node, with all that belongs to it. Who owns which slot is asked for when it is
//!   not known or a node cannot be reached; `MOVED` and `ASK` are followed, since they mean that the command had no effect.
//! - Nothing else is ever sent twice. A command whose reply is lost is an error of unknown outcome, whatever the client.
//!
//! Redis replicates without waiting: a failover can lose what was just written. A checkpoint in the same server then goes back
//! together with its stream. One that is kept elsewhere shows that the stream lost entries.
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
//! | `highwater:{orders}:attempts:6:orders:billing` | hash | what is remembered of entries that failed |
//! | `highwater:{orders}:letters:6:orders:7:billing:{orders}:dead:billing` | hash | for each dead letter, here in `{orders}:dead:billing`, its entry |
//! | `highwater:{orders}:dead-keys:6:orders:7:billing:{orders}:dead:billing` | sorted set | the dead letters by key |
//!
//! Do not let the server evict them: with `maxmemory-policy` at `allkeys-*` it may drop checkpoints, and streams too. At the
//! memory limit checkpoints and heartbeats are still written, since they are small and free what is pending; appends are
//! refused.

mod attempts;
mod backend;
mod checkpoint;
mod choice;
mod client;
mod commands;
mod effects;
mod error;
#[cfg(all(any(test, fuzzing), feature = "redis-rs", feature = "fred"))]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod letters;
mod packed;
mod read;
mod reply;
mod scripts;
mod settings;
mod settle;
mod stream;
mod transaction;
mod watched;

#[cfg(feature = "fred")]
pub use crate::client::Fred;
#[cfg(feature = "redis-rs")]
pub use crate::client::RedisRs;
pub use crate::{
    backend::Redis,
    choice::{Client, RedisStore, connect, connect_with},
    effects::Effects,
    keys::key_beside,
    settings::Settings,
};

#[cfg(not(any(feature = "redis-rs", feature = "fred")))]
compile_error!("highwater-redis needs a client: enable the feature `redis-rs` or `fred`");
