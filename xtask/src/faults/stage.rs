//! The servers of a scene, and what stands before and between them.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{cluster, scene::past};
use crate::{
    Result, servers,
    support::{
        postgres::PostgresServer,
        process::Guarded,
        proxy::TcpProxy,
        resp::{Connection, Reply},
        server::RedisServer,
    },
};

/// Servers must come to stand as they should within this.
pub const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// How long a sentinel waits before it takes a master for dead.
const DOWN_AFTER_MS: u32 = 1_000;

/// How the servers of the stream stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// One that keeps nothing on disk.
    Memory,
    /// One that has on disk what it has answered.
    Always,
    /// One that has on disk what is older than a second.
    EverySecond,
    /// One behind a proxy, and the database behind another.
    Proxied,
    /// The same, of a server that has on disk what it has answered.
    AlwaysProxied,
    /// A master behind a proxy, and a replica that follows it through another.
    Replicated,
    /// A master and a replica under the eyes of a sentinel.
    Watched,
    /// Three nodes.
    Cluster,
}

/// All servers. They end with it.
#[derive(Debug)]
pub struct Stage {
    ground: Ground,
    /// The master is the first.
    pub redis: Vec<RedisServer>,
    pub postgres: Option<PostgresServer>,
    /// Before the master.
    pub front: Option<TcpProxy>,
    /// Before the database.
    pub database: Option<TcpProxy>,
    /// Between the master and its replica.
    pub link: Option<TcpProxy>,
    pub sentinel: Option<Sentinel>,
}

impl Stage {
    pub async fn open(ground: Ground, with_postgres: bool) -> Result<Self> {
        const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
        const EVERY_SECOND: &[&str] = &["--appendonly", "yes", "--appendfsync", "everysec"];
        let mut stage = Self {
            ground,
            redis: Vec::new(),
            postgres: None,
            front: None,
            database: None,
            link: None,
            sentinel: None,
        };
        stage.redis = match ground {
            Ground::Memory | Ground::Proxied => vec![redis(&[])?],
            Ground::Always | Ground::AlwaysProxied => vec![redis(ALWAYS)?],
            Ground::EverySecond => vec![redis(EVERY_SECOND)?],
            Ground::Replicated | Ground::Watched => vec![redis(&["--repl-diskless-sync-delay", "0"])?],
            Ground::Cluster => cluster::start()?,
        };
        if with_postgres {
            // What a process wrote survives it without a wait for the disk, which would measure the disk.
            stage.postgres = Some(servers::private_postgres(&["max_connections=100"])?);
        }
        match ground {
            Ground::Proxied | Ground::AlwaysProxied => {
                stage.front = Some(TcpProxy::start(stage.redis[0].addr()).await);
                if let Some(postgres) = &stage.postgres {
                    stage.database = Some(TcpProxy::start(postgres.addr()).await);
                }
            }
            Ground::Replicated => {
                let link = TcpProxy::start(stage.redis[0].addr()).await;
                stage.front = Some(TcpProxy::start(stage.redis[0].addr()).await);
                stage.redis.push(replica(link.addr().port())?);
                stage.link = Some(link);
            }
            Ground::Watched => {
                stage.redis.push(replica(stage.redis[0].addr().port())?);
                stage.sentinel = Some(Sentinel::start(stage.redis[0].addr().port())?);
            }
            _ => {}
        }
        Ok(stage)
    }

    /// Where consumers and producers connect.
    pub fn url(&self) -> String {
        match (&self.front, &self.sentinel) {
            (Some(front), _) => front.url(),
            (_, Some(sentinel)) => format!("redis-sentinel://127.0.0.1:{}?master=m", sentinel.port),
            _ if self.ground == Ground::Cluster => cluster::url(&self.redis),
            _ => self.redis[0].url(),
        }
    }

    pub fn postgres_url(&self) -> Option<String> {
        let direct = self.postgres.as_ref()?.url();
        Some(match &self.database {
            Some(proxy) => format!("postgres://postgres@{}/postgres", proxy.addr()),
            None => direct,
        })
    }

    pub fn postgres(&mut self) -> Result<&mut PostgresServer> {
        Ok(self.postgres.as_mut().ok_or("this fault needs a database")?)
    }

    /// Runs a command on the master, which must not refuse it.
    pub fn run(&self, command: &[&str]) -> Result<Reply> {
        run(&mut self.redis[0].connect()?, command)
    }
}

/// Runs a command that must not be refused.
pub fn run(connection: &mut Connection, command: &[&str]) -> Result<Reply> {
    let reply = connection.run(command)?;
    if reply.is_error() {
        return Err(format!("{}: {reply}", command.join(" ")).into());
    }
    Ok(reply)
}

/// Waits until a condition holds, which may fail meanwhile. For threads that may block.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result {
    let deadline = Instant::now() + LIMIT;
    while !condition().unwrap_or(false) {
        past(deadline, what)?;
        thread::sleep(POLL);
    }
    Ok(())
}

/// The number behind a name in what a server says of itself.
pub fn info(connection: &mut Connection, section: &str, name: &str) -> Result<String> {
    let text = run(connection, &["INFO", section])?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn redis(options: &[&str]) -> Result<RedisServer> {
    servers::private_redis(&[options, &["--enable-debug-command", "local"]].concat())
}

fn replica(master: u16) -> Result<RedisServer> {
    let replica = redis(&["--replicaof", "127.0.0.1", &master.to_string()])?;
    let mut connection = replica.connect()?;
    until("the replica does not follow", || {
        Ok(info(&mut connection, "replication", "master_link_status")? == "up")
    })?;
    Ok(replica)
}

/// Watches a master under the name `m`, and promotes its replica by itself.
#[derive(Debug)]
pub struct Sentinel {
    pub port: u16,
    _process: Guarded,
    _folder: TempDir,
}

impl Sentinel {
    fn start(master: u16) -> Result<Self> {
        let folder = TempDir::new()?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nlogfile sentinel.log\ndir {}\n\
             sentinel monitor m 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds m {DOWN_AFTER_MS}\nsentinel failover-timeout m 5000\n",
            folder.path().display()
        );
        let file = folder.path().join("sentinel.conf");
        fs::write(&file, settings)?;
        let mut command = Command::new(servers::redis_program()?);
        command.arg(&file).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = Self { port, _process: Guarded::spawn(&mut command)?, _folder: folder };
        until("the sentinel does not know of the replica", || {
            Ok(run(&mut sentinel.connect()?, &["SENTINEL", "REPLICAS", "m"])?.list().len() == 1)
        })?;
        Ok(sentinel)
    }

    /// The port of the master that it names.
    pub fn master(&self) -> Result<u16> {
        let reply = run(&mut self.connect()?, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m"])?;
        Ok(reply.list().get(1).ok_or("no master")?.text().parse()?)
    }

    fn connect(&self) -> Result<Connection> {
        Ok(Connection::open(([127, 0, 0, 1], self.port).into(), LIMIT)?)
    }
}
