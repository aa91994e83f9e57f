//! Provides the servers that the tests need, and ends those that it started.

mod container;
mod install;

use std::{
    env, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use self::{container::Container, install::install};
use crate::{
    Result,
    support::{
        postgres::{PostgresServer, postgres_programs},
        server::{RedisServer, redis_binary},
    },
};

/// The servers of one run. They end with it.
#[derive(Debug)]
pub struct Servers(Vec<Server>);

impl Servers {
    /// One of each kind that tests share.
    pub fn provide() -> Result<Self> {
        Ok(Self(vec![Server::provide(&REDIS)?, Server::provide(&POSTGRES)?]))
    }

    /// Tells a process where they are.
    pub fn tell(&self, command: &mut Command) {
        for server in &self.0 {
            command.env(server.kind.url_variable, &server.url);
            if let Some(programs) = &server.programs {
                command.env(server.kind.programs_variable, programs);
            }
        }
    }
}

/// A Redis server of one's own, for a task that kills it or measures it.
#[cfg(feature = "runs")]
pub fn private_redis() -> Result<RedisServer> {
    let binary = REDIS.programs().ok_or("this needs `redis-server` on the PATH, or in REDIS_SERVER")?;
    Ok(RedisServer::try_start(&binary, &[])?)
}

/// A PostgreSQL server of one's own, for a task that kills it or measures it.
#[cfg(feature = "runs")]
pub fn private_postgres(options: &[&str]) -> Result<PostgresServer> {
    let programs =
        POSTGRES.programs().ok_or("this needs PostgreSQL's programs on the PATH, or in POSTGRES_BIN")?;
    Ok(PostgresServer::try_start(&programs, options)?)
}

/// What is to be known of a kind of server to provide one.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    /// Tells a test where the server is; where it is set already, that server is taken.
    url_variable: &'static str,
    /// Tells a test how to start another one, which it may kill.
    programs_variable: &'static str,
    find: fn() -> Option<PathBuf>,
    start: fn(&Path) -> io::Result<(Provider, SocketAddr)>,
    image: &'static str,
    port: u16,
    /// For `docker run`, before the image.
    options: &'static [&'static str],
    /// For `docker run`, behind the image.
    arguments: &'static [&'static str],
    /// Succeeds in the container once the server is ready.
    ready: &'static [&'static str],
    url: fn(SocketAddr) -> String,
    /// The package of Debian.
    package: &'static str,
    service: &'static str,
}

const REDIS: Kind = Kind {
    name: "redis",
    url_variable: "REDIS_URL",
    programs_variable: "REDIS_SERVER",
    find: redis_binary,
    start: |binary| {
        let server = RedisServer::try_start(binary, &[])?;
        let addr = server.addr();
        Ok((Provider::Redis(server), addr))
    },
    image: "redis:7",
    port: 6379,
    options: &[],
    arguments: &["redis-server", "--save", "", "--appendonly", "no"],
    ready: &["redis-cli", "ping"],
    url: |addr| format!("redis://{addr}/"),
    package: "redis-server",
    service: "redis-server",
};

const POSTGRES: Kind = Kind {
    name: "postgres",
    url_variable: "DATABASE_URL",
    programs_variable: "POSTGRES_BIN",
    find: postgres_programs,
    start: |programs| {
        let server = PostgresServer::try_start(programs, &[])?;
        let addr = server.addr();
        Ok((Provider::Postgres(server), addr))
    },
    image: "postgres:15",
    port: 5432,
    options: &["--env", "POSTGRES_HOST_AUTH_METHOD=trust"],
    arguments: &["postgres", "-c", "fsync=off", "-c", "max_connections=200"],
    // While the image sets up its data, a server answers that only listens inside.
    ready: &["pg_isready", "--host", "127.0.0.1"],
    url: |addr| format!("postgres://postgres@{addr}/postgres"),
    package: "postgresql",
    service: "postgresql",
};

impl Kind {
    /// The programs of this machine, installed where that takes no question.
    fn programs(&self) -> Option<PathBuf> {
        (self.find)().or_else(|| {
            install(self.name, &[self.package], self.service)?;
            (self.find)()
        })
    }
}

#[derive(Debug)]
struct Server {
    kind: &'static Kind,
    url: String,
    programs: Option<PathBuf>,
    _provider: Provider,
}

#[expect(dead_code, reason = "held for what their drop does")]
#[derive(Debug)]
enum Provider {
    Given,
    Container(Container),
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    /// The one that the environment names; else Docker; else programs that are installed; else those that can be.
    fn provide(kind: &'static Kind) -> Result<Self> {
        let name = kind.name;
        if let Some(url) = env::var(kind.url_variable).ok().filter(|url| !url.is_empty()) {
            // Not the URL: it may hold a password.
            println!("{name}: the one that {} names", kind.url_variable);
            return Ok(Self { kind, url, programs: (kind.find)(), _provider: Provider::Given });
        }
        if let Some(container) = Container::start(kind) {
            println!("{name}: {} in Docker", kind.image);
            let url = (kind.url)(container.addr());
            return Ok(Self {
                kind,
                url,
                programs: kind.programs(),
                _provider: Provider::Container(container),
            });
        }
        let programs = kind.programs().ok_or_else(|| {
            let (variable, package) = (kind.url_variable, kind.package);
            format!("no {name}: set {variable} to one that tests may use, or install `{package}` or Docker")
        })?;
        let (provider, addr) = (kind.start)(&programs)?;
        println!("{name}: {} at {addr}", programs.display());
        Ok(Self { kind, url: (kind.url)(addr), programs: Some(programs), _provider: provider })
    }
}
