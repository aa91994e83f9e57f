//! What is done to the servers. Each returns when the fault is over, as far as the servers can tell.

use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    thread,
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinSet, block_in_place},
};

use super::{
    cluster,
    stage::{Stage, info, run, until},
};
use crate::{
    Result,
    support::{proxy::TcpProxy, server::RedisServer},
};

/// How long something lasts that lasts: longer than a lease, so that owners lose theirs.
const HOLD: Duration = Duration::from_millis(3_500);
/// How many ask for the connections of a database at once, and how long each waits while it has none left.
const HOGS: usize = 16;
const FULL: Duration = Duration::from_millis(20);
/// How long a server that was killed stays away.
const AWAY: Duration = Duration::from_secs(1);
/// How many refusals show that the memory is full for the producer too.
const REFUSALS: u64 = 20;
/// A replica must lack this many bytes before it is promoted, and a disk before it is used again.
const TAIL: u64 = 8_000;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    PowerLoss,
    ClientKill,
    ClientPause,
    DebugSleep,
    FlushAll,
    Del,
    Rename,
    SetOver,
    ScriptFlush,
    MaxMemory,
    Promote,
    Failover,
    MoveSlot,
    Cut,
    Stall,
    HalfOpen,
    LoseReplies,
    PgKill,
    PgRestart,
    PgReadOnly,
    PgConnections,
    PgStall,
    PgHalfOpen,
    PgLoseReplies,
}

impl Fault {
    /// Does it to the servers of this stream. Blocks, but not the other tasks.
    pub fn strike(self, stage: &mut Stage, stream: &str) -> Result {
        block_in_place(|| self.blocking(stage, stream))
    }

    fn blocking(self, stage: &mut Stage, stream: &str) -> Result {
        match self {
            Self::Kill => kill(&mut stage.redis[0]),
            Self::PowerLoss => power_loss(&mut stage.redis[0]),
            Self::ClientKill => stage.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).map(drop),
            Self::ClientPause => {
                let mut connection = stage.redis[0].connect()?;
                let hold = HOLD.as_millis().to_string();
                run(&mut connection, &["CLIENT", "PAUSE", &hold, "ALL"])?;
                // It is answered when the pause is over.
                run(&mut connection, &["PING"]).map(drop)
            }
            Self::DebugSleep => stage.run(&["DEBUG", "SLEEP", &HOLD.as_secs_f64().to_string()]).map(drop),
            Self::FlushAll => stage.run(&["FLUSHALL"]).map(drop),
            Self::Del => stage.run(&["DEL", stream]).map(drop),
            Self::Rename => stage.run(&["RENAME", stream, &format!("{{{stream}}}:away")]).map(drop),
            Self::SetOver => {
                stage.run(&["SET", stream, "not a stream"])?;
                thread::sleep(HOLD);
                stage.run(&["DEL", stream]).map(drop)
            }
            Self::ScriptFlush => stage.run(&["SCRIPT", "FLUSH", "SYNC"]).map(drop),
            Self::MaxMemory => max_memory(stage),
            Self::Promote => promote(stage),
            Self::Failover => failover(stage),
            Self::MoveSlot => cluster::migrate(&stage.redis, stream),
            Self::Cut | Self::Stall | Self::HalfOpen | Self::LoseReplies => {
                self.network(stage.front.as_ref(), b"XADD")
            }
            Self::PgStall | Self::PgHalfOpen | Self::PgLoseReplies => {
                self.network(stage.database.as_ref(), b"COMMIT")
            }
            Self::PgKill => {
                let postgres = stage.postgres()?;
                postgres.kill();
                thread::sleep(AWAY);
                Ok(postgres.restart()?)
            }
            Self::PgRestart => {
                let postgres = stage.postgres()?;
                postgres.shut_down()?;
                Ok(postgres.restart()?)
            }
            Self::PgReadOnly => read_only(stage),
            Self::PgConnections => Handle::current().block_on(out_of_connections(stage)),
        }
    }

    fn network(self, proxy: Option<&TcpProxy>, written: &[u8]) -> Result {
        let proxy = proxy.ok_or("this fault needs a proxy")?;
        match self {
            Self::Cut => proxy.cut(),
            Self::HalfOpen | Self::PgHalfOpen => proxy.half_open(),
            Self::LoseReplies | Self::PgLoseReplies => lose_replies(proxy, written)?,
            _ => {
                proxy.stall(true);
                thread::sleep(HOLD);
                proxy.stall(false);
            }
        }
        Ok(())
    }
}

/// As the kernel would kill it. What it wrote is in the files, also what it did not wait for.
fn kill(server: &mut RedisServer) -> Result {
    server.kill();
    thread::sleep(AWAY);
    Ok(server.restart()?)
}

/// As if the machine had lost its power: the end of what was written last never came to the disk.
fn power_loss(server: &mut RedisServer) -> Result {
    let log = log_of(server)?;
    until("the log is too short to lose its end", || Ok(fs::metadata(&log)?.len() > 4 * TAIL))?;
    server.kill();
    let len = fs::metadata(&log)?.len();
    OpenOptions::new().write(true).open(&log)?.set_len(len - TAIL)?;
    thread::sleep(AWAY);
    Ok(server.restart()?)
}

/// The file that a server appends to.
fn log_of(server: &RedisServer) -> Result<PathBuf> {
    let folder = server.dir().join("appendonlydir");
    for file in fs::read_dir(&folder)? {
        let path = file?.path();
        if path.to_string_lossy().ends_with(".incr.aof") {
            return Ok(path);
        }
    }
    Err("the server keeps no log".into())
}

fn max_memory(stage: &Stage) -> Result {
    let mut connection = stage.redis[0].connect()?;
    // Below what it has, so that nothing is taken however that changes.
    let most = info(&mut connection, "memory", "used_memory")?.parse::<u64>()? / 2;
    let before = refusals(&mut connection)?;
    run(&mut connection, &["CONFIG", "SET", "maxmemory", &most.to_string()])?;
    until("nothing is refused for want of memory", || Ok(refusals(&mut connection)? >= before + REFUSALS))?;
    thread::sleep(HOLD);
    run(&mut connection, &["CONFIG", "SET", "maxmemory", "0"]).map(drop)
}

fn refusals(connection: &mut crate::support::resp::Connection) -> Result<u64> {
    let counted = info(connection, "errorstats", "errorstat_OOM")?;
    Ok(counted.strip_prefix("count=").and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// The replica falls behind, the master dies, and the replica takes its place without the end.
fn promote(stage: &mut Stage) -> Result {
    let (front, link) = (stage.front.as_ref(), stage.link.as_ref());
    let (front, link) = front.zip(link).ok_or("this fault needs a replica")?;
    let [master, replica] = &mut stage.redis[..] else { return Err("one replica".into()) };
    let mut ours = replica.connect()?;
    link.stall(true);
    let mut theirs = master.connect()?;
    until("the replica does not fall behind", || {
        let written: u64 = info(&mut theirs, "replication", "master_repl_offset")?.parse()?;
        let known: u64 = info(&mut ours, "replication", "master_repl_offset")?.parse()?;
        Ok(written >= known + TAIL)
    })?;
    master.kill();
    run(&mut ours, &["REPLICAOF", "NO", "ONE"])?;
    front.retarget(replica.addr());
    front.cut();
    Ok(())
}

/// The master dies, and a sentinel finds out and promotes the replica.
fn failover(stage: &mut Stage) -> Result {
    let sentinel = stage.sentinel.as_ref().ok_or("this fault needs a sentinel")?;
    let [master, replica] = &mut stage.redis[..] else { return Err("one replica".into()) };
    master.kill();
    until("the sentinel does not promote the replica", || {
        let named = sentinel.master()? == replica.addr().port();
        Ok(named && info(&mut replica.connect()?, "replication", "role")? == "master")
    })
}

/// Loses the reply to a write, again and again.
fn lose_replies(proxy: &TcpProxy, written: &[u8]) -> Result {
    const TIMES: u64 = 5;
    Handle::current().block_on(async {
        for _ in 0..TIMES {
            let next = proxy.triggers() + 1;
            proxy.lose_reply_to(written);
            let lost = tokio::time::timeout(super::stage::LIMIT, proxy.triggered(next)).await;
            lost.map_err(|_| "nothing is written whose reply could be lost")?;
        }
        Ok(())
    })
}

/// As a primary that became a standby: every transaction may only read.
fn read_only(stage: &mut Stage) -> Result {
    let postgres = stage.postgres()?;
    let set = |value: &str| -> Result {
        postgres.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"))?;
        postgres.sql("SELECT pg_reload_conf()")?;
        until("the database does not change", || {
            Ok(postgres.sql("SHOW default_transaction_read_only")? == value)
        })
    };
    set("on")?;
    thread::sleep(HOLD);
    set("off")
}

/// Takes all connections that the database has, those of the consumers too.
async fn out_of_connections(stage: &mut Stage) -> Result {
    // It waits until each is gone.
    const TERMINATE: &str = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND application_name <> 'hog'";
    let url = format!("{}?application_name=hog", stage.postgres()?.url());
    let mut first = PgConnection::connect(&url).await?;
    let (over, is_over) = watch::channel(false);
    // Several, since those who are cut off come back side by side as well.
    let mut hogs = JoinSet::new();
    for _ in 0..HOGS {
        let (url, is_over) = (url.clone(), is_over.clone());
        hogs.spawn(async move {
            let mut held = Vec::new();
            while !*is_over.borrow() {
                match PgConnection::connect(&url).await {
                    Ok(connection) => held.push(connection),
                    Err(_) => tokio::time::sleep(FULL).await,
                }
            }
            held
        });
    }
    let deadline = std::time::Instant::now() + super::stage::LIMIT;
    while !sqlx::query(TERMINATE).fetch_all(&mut first).await?.is_empty() {
        super::scene::past(deadline, "the connections cannot be taken")?;
        tokio::time::sleep(FULL).await;
    }
    tokio::time::sleep(HOLD).await;
    over.send(true)?;
    for hog in hogs.join_all().await.into_iter().flatten().chain([first]) {
        hog.close().await?;
    }
    Ok(())
}
