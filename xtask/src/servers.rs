//! Provides the servers that the tests need, and ends those that it started.

mod container;
mod docker;
mod images;
mod install;
mod wheels;

use std::{
    env, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use self::{
    container::Container,
    docker::Docker,
    install::{install, stop_service},
    wheels::WHEELS,
};
use crate::{
    Result,
    support::{
        postgres::{PostgresServer, postgres_programs},
        server::{RedisServer, redis_binary},
    },
};

/// The servers of one run. They end with it.
#[derive(Debug)]
pub struct Servers {
    shared: Vec<Server>,
    /// A daemon that was started for this run.
    docker: Option<Docker>,
    versions: Vec<(&'static str, PathBuf)>,
}

impl Servers {
    /// One of each kind that tests share.
    pub fn provide() -> Result<Self> {
        let shared = vec![Server::provide(&REDIS)?, Server::provide(&POSTGRES)?];
        let versions = WHEELS.iter().filter_map(|wheel| Some((wheel.variable, wheel.cached()?))).collect();
        Ok(Self { shared, docker: None, versions })
    }

    /// Also other versions, in containers and from elsewhere, so far as this machine can have them; a suite says which it
    /// missed. It may take minutes the first time, and does something else `meanwhile`.
    pub fn provide_versions(&mut self, meanwhile: impl FnOnce()) {
        thread::scope(|scope| {
            let docker = scope.spawn(|| complain("docker", daemon_with_images()).flatten());
            let versions = scope.spawn(|| {
                let provide =
                    |wheel: &wheels::Wheel| Some((wheel.variable, complain("redis", wheel.provide())?));
                WHEELS.iter().filter_map(provide).collect()
            });
            scope.spawn(pooler);
            meanwhile();
            self.docker = docker.join().unwrap_or_default();
            self.versions = versions.join().unwrap_or_default();
        });
    }

    /// Whether containers can be run.
    pub fn has_docker(&self) -> bool {
        self.docker.is_some() || Docker::find().is_some()
    }

    /// Tells a process where they are.
    pub fn tell(&self, command: &mut Command) {
        for server in &self.shared {
            command.env(server.kind.url_variable, &server.url);
            if let Some(programs) = &server.programs {
                command.env(server.kind.programs_variable, programs);
            }
        }
        if let Some(host) = self.docker.as_ref().and_then(|docker| docker.host.as_ref()) {
            command.env("DOCKER_HOST", host);
        }
        for (variable, program) in
            self.versions.iter().filter(|(variable, _)| env::var_os(variable).is_none())
        {
            command.env(variable, program);
        }
    }
}

/// `cargo xtask images`: in the daemon that answers, or in the one that tests will start.
pub fn images() -> Result {
    images::build(&Docker::find().map_or_else(Docker::start, Ok)?)
}

/// A daemon with our images, if none answers that can pull the official ones.
fn daemon_with_images() -> Result<Option<Docker>> {
    if Docker::find().is_some() {
        return Ok(None);
    }
    let docker = Docker::start()?;
    images::build(&docker)?;
    Ok(Some(docker))
}

fn complain<T>(what: &str, result: Result<T>) -> Option<T> {
    result.inspect_err(|error| println!("{what}: {error}")).ok()
}

/// A Redis server of one's own, for a task that kills it or measures it.
#[cfg(feature = "runs")]
pub fn private_redis(options: &[&str]) -> Result<RedisServer> {
    Ok(RedisServer::try_start(&redis_program()?, options)?)
}

/// The program of a Redis server, for whoever starts it in a way of its own.
pub fn redis_program() -> Result<PathBuf> {
    Ok(REDIS.programs().ok_or("this needs `redis-server` on the PATH, or in REDIS_SERVER")?)
}

/// A PostgreSQL server of one's own, for a task that kills it or measures it.
#[cfg(feature = "runs")]
pub fn private_postgres(options: &[&str]) -> Result<PostgresServer> {
    Ok(PostgresServer::try_start(&postgres_folder()?, options)?)
}

/// The folder of PostgreSQL's programs, likewise.
pub fn postgres_folder() -> Result<PathBuf> {
    Ok(POSTGRES.programs().ok_or("this needs PostgreSQL's programs on the PATH, or in POSTGRES_BIN")?)
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

/// Puts a pooler before PostgreSQL within reach of the test that starts one. Where it cannot be had, that test says so.
fn pooler() {
    let installed = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].iter().any(|path| Path::new(path).exists());
    if !installed && install("pooler", &["pgbouncer"]).is_some() {
        stop_service("pgbouncer");
    }
}

impl Kind {
    /// The programs of this machine, installed where that takes no question.
    fn programs(&self) -> Option<PathBuf> {
        (self.find)().or_else(|| {
            install(self.name, &[self.package])?;
            stop_service(self.service);
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
