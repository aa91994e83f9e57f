//! Provides the servers that the tests need, and ends those that it started.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    support::{
        process::{Guarded, Watchdog},
        resp::Connection,
        server::{RedisServer, redis_binary},
    },
};

const IMAGE: &str = "redis:7";
/// A daemon that does not answer within this is none: nobody should wait in silence.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(5);
const PULL_TIMEOUT: Duration = Duration::from_secs(120);
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// The servers of one run. They end with it.
#[derive(Debug)]
pub struct Servers {
    /// A Redis server that all tests share.
    pub redis_url: String,
    /// The program for private servers, where a test needs one that it may kill.
    pub redis_server: Option<PathBuf>,
    _redis: Provider,
}

#[expect(dead_code, reason = "held for what their drop does")]
#[derive(Debug)]
enum Provider {
    Given,
    Container(Container),
    Local(RedisServer),
}

impl Servers {
    /// `REDIS_URL`; else Docker; else a `redis-server` that is installed; else one that can be.
    pub fn provide() -> Result<Self> {
        if let Some(url) = env::var("REDIS_URL").ok().filter(|url| !url.is_empty()) {
            // Not the URL: it may hold a password.
            println!("redis: the one that REDIS_URL names");
            return Ok(Self { redis_url: url, redis_server: redis_binary(), _redis: Provider::Given });
        }
        if let Some(container) = Container::start() {
            println!("redis: {IMAGE} in Docker");
            let redis_url = format!("redis://{}/", container.addr);
            let redis_server = redis_binary().or_else(install);
            return Ok(Self { redis_url, redis_server, _redis: Provider::Container(container) });
        }
        let binary = redis_binary().or_else(install).ok_or(
            "no Redis server: set REDIS_URL to one that tests may use, or install `redis-server` or Docker",
        )?;
        let server = RedisServer::try_start(&binary, &[])?;
        println!("redis: {} at {}", binary.display(), server.addr());
        Ok(Self { redis_url: server.url(), redis_server: Some(binary), _redis: Provider::Local(server) })
    }

    /// Tells a process where they are.
    pub fn tell(&self, command: &mut Command) {
        command.env("REDIS_URL", &self.redis_url);
        if let Some(binary) = &self.redis_server {
            command.env("REDIS_SERVER", binary);
        }
    }
}

/// A Redis server of one's own, for a task that kills it or measures it.
#[cfg(feature = "runs")]
pub fn private_redis() -> Result<RedisServer> {
    let binary =
        redis_binary().or_else(install).ok_or("this needs `redis-server` on the PATH, or in REDIS_SERVER")?;
    Ok(RedisServer::try_start(&binary, &[])?)
}

/// A container that is removed when this is dropped or this process is gone.
#[derive(Debug)]
struct Container {
    id: String,
    addr: SocketAddr,
    _watchdog: Watchdog,
}

impl Container {
    /// Starts a Redis server, if the daemon answers and has the image or can get it.
    fn start() -> Option<Self> {
        answer(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]), DAEMON_TIMEOUT)?;
        if answer(Command::new("docker").args(["image", "inspect", IMAGE]), DAEMON_TIMEOUT).is_none() {
            println!("redis: pulling {IMAGE}, for at most {} s", PULL_TIMEOUT.as_secs());
            answer(Command::new("docker").args(["pull", "--quiet", IMAGE]), PULL_TIMEOUT)?;
        }
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--rm", "--publish", "127.0.0.1::6379", IMAGE]);
        run.args(["redis-server", "--save", "", "--appendonly", "no"]);
        let id = answer(&mut run, PULL_TIMEOUT)?;
        let _watchdog = Watchdog::new(&["docker", "rm", "--force", &id]).ok()?;
        let mut container = Self { id, addr: SocketAddr::from(([127, 0, 0, 1], 0)), _watchdog };
        let ports = answer(Command::new("docker").args(["port", &container.id, "6379/tcp"]), DAEMON_TIMEOUT)?;
        container.addr = ports.lines().next()?.parse().ok()?;
        wait_for(container.addr).then_some(container)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        answer(Command::new("docker").args(["rm", "--force", &self.id]), DAEMON_TIMEOUT);
    }
}

fn wait_for(addr: SocketAddr) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let pong = Connection::open(addr, Duration::from_secs(1))
            .and_then(|mut connection| connection.run(&["PING"]));
        if pong.is_ok_and(|reply| !reply.is_error()) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Installs `redis-server` where that takes no question: as root, on a Debian.
fn install() -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() || !Path::new("/etc/debian_version").exists() {
        return None;
    }
    println!("redis: installing redis-server, for at most {} s", INSTALL_TIMEOUT.as_secs());
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        answer(&mut command, INSTALL_TIMEOUT)
    };
    apt(&["update"])?;
    apt(&["install", "--yes", "--no-install-recommends", "redis-server"])?;
    // The package starts a service at once; the tests use servers of their own.
    let _ = answer(Command::new("service").args(["redis-server", "stop"]), DAEMON_TIMEOUT);
    redis_binary()
}

/// What a command prints, if it succeeds in time. A command that does not is ended.
fn answer(command: &mut Command, limit: Duration) -> Option<String> {
    // A file, since a pipe that nobody reads blocks a command that prints much.
    let output = tempfile::NamedTempFile::new().ok()?;
    command.stdin(Stdio::null()).stdout(output.reopen().ok()?).stderr(Stdio::null());
    let mut child = Guarded::spawn(command).ok()?;
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().ok()? {
            let text = fs::read_to_string(output.path()).ok()?;
            return status.success().then(|| text.trim().to_owned());
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_answer_is_ended() {
        let start = Instant::now();
        assert_eq!(answer(Command::new("sleep").arg("600"), Duration::from_millis(100)), None);
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(answer(Command::new("echo").arg("yes"), DAEMON_TIMEOUT).as_deref(), Some("yes"));
        assert_eq!(answer(&mut Command::new("false"), DAEMON_TIMEOUT), None);
    }
}
