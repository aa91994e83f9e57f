//! The rows of the table: what is done, to which servers, and where the checkpoint is.

use super::{stage::Ground, strike::Fault};
use crate::cli::FaultStore::{self, Keys, Postgres, Redis, Rows};

/// One fault, over some stores.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub fault: Fault,
    pub ground: Ground,
    pub stores: &'static [FaultStore],
    pub harm: Harm,
    /// Whether it belongs to the short form, over the first store.
    pub short: bool,
}

/// What the fault may take, and how that must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Nothing. No gap and no reset is told, and no consumer ends: all goes on without a restart.
    Nothing,
    /// What the server confirmed last. Of that, what nobody had read leaves no trace; consumers follow what is there. What came
    /// after the fault, and what the stream has at the end, must be handled.
    Tail,
    /// All entries, and perhaps the checkpoint with them. Consumers say so, and follow.
    Entries,
    /// The same, and while it lasts consumers end with a typed error.
    Key,
}

const fn kind(name: &'static str, fault: Fault, ground: Ground, stores: &'static [FaultStore]) -> Kind {
    Kind { name, fault, ground, stores, harm: Harm::Nothing, short: false }
}

const fn harmful(kind: Kind, harm: Harm) -> Kind {
    Kind { harm, ..kind }
}

const fn short(kind: Kind) -> Kind {
    Kind { short: true, ..kind }
}

/// All of them.
pub const KINDS: &[Kind] = &[
    kind("kill -9, AOF always", Fault::Kill, Ground::Always, &[Redis, Postgres, Rows, Keys]),
    harmful(kind("kill -9, AOF everysec", Fault::Kill, Ground::EverySecond, &[Redis, Postgres]), Harm::Tail),
    harmful(
        kind("power loss, AOF everysec", Fault::PowerLoss, Ground::EverySecond, &[Redis, Postgres]),
        Harm::Tail,
    ),
    short(kind("CLIENT KILL", Fault::ClientKill, Ground::Memory, &[Redis, Postgres, Rows, Keys])),
    kind("CLIENT PAUSE", Fault::ClientPause, Ground::Memory, &[Redis, Rows, Keys]),
    kind("DEBUG SLEEP", Fault::DebugSleep, Ground::Memory, &[Redis, Rows]),
    short(kind("SCRIPT FLUSH", Fault::ScriptFlush, Ground::Memory, &[Redis, Rows, Keys])),
    kind("maxmemory", Fault::MaxMemory, Ground::Memory, &[Redis, Postgres, Rows]),
    short(harmful(kind("FLUSHALL", Fault::FlushAll, Ground::Memory, &[Postgres, Redis]), Harm::Entries)),
    harmful(kind("DEL", Fault::Del, Ground::Memory, &[Postgres, Redis]), Harm::Entries),
    harmful(kind("RENAME", Fault::Rename, Ground::Memory, &[Postgres, Redis]), Harm::Entries),
    harmful(kind("SET over the key", Fault::SetOver, Ground::Memory, &[Postgres, Redis]), Harm::Key),
    harmful(kind("replica promoted", Fault::Promote, Ground::Replicated, &[Redis, Postgres]), Harm::Tail),
    harmful(kind("Sentinel failover", Fault::Failover, Ground::Watched, &[Redis, Postgres]), Harm::Tail),
    kind("slot migration", Fault::MoveSlot, Ground::Cluster, &[Redis, Rows, Keys]),
    kind("network cut", Fault::Cut, Ground::Proxied, &[Redis, Rows]),
    kind("network silent", Fault::Stall, Ground::Proxied, &[Redis, Rows]),
    kind("half open", Fault::HalfOpen, Ground::Proxied, &[Redis, Rows]),
    kind("replies lost", Fault::LoseReplies, Ground::Proxied, &[Redis, Rows]),
    short(kind("Postgres kill -9", Fault::PgKill, Ground::Memory, &[Rows, Postgres])),
    kind("Postgres restart", Fault::PgRestart, Ground::Memory, &[Postgres, Rows]),
    kind("Postgres read-only", Fault::PgReadOnly, Ground::Memory, &[Postgres, Rows]),
    kind("Postgres out of connections", Fault::PgConnections, Ground::Memory, &[Postgres, Rows]),
    kind("Postgres silent", Fault::PgStall, Ground::Proxied, &[Postgres, Rows]),
    kind("Postgres half open", Fault::PgHalfOpen, Ground::Proxied, &[Postgres, Rows]),
    kind("Postgres replies lost", Fault::PgLoseReplies, Ground::Proxied, &[Rows]),
];

/// The name of a store in the table.
pub fn store_name(store: FaultStore) -> &'static str {
    match store {
        Redis => "redis",
        Postgres => "postgres",
        Rows => "postgres, tx",
        Keys => "redis, tx",
    }
}

pub fn is_transactional(store: FaultStore) -> bool {
    matches!(store, Rows | Keys)
}
