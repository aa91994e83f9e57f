//! A server in a container.

use std::{
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{Kind, install::answer};
use crate::support::process::Watchdog;

/// A daemon that does not answer within this is none: nobody should wait in silence.
pub const DAEMON_TIMEOUT: Duration = Duration::from_secs(5);
const PULL_TIMEOUT: Duration = Duration::from_secs(120);
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A container that is removed when this is dropped or this process is gone.
#[derive(Debug)]
pub struct Container {
    id: String,
    addr: SocketAddr,
    _watchdog: Watchdog,
}

impl Container {
    /// Starts a server, if the daemon answers and has the image or can get it.
    pub fn start(kind: &Kind) -> Option<Self> {
        docker(&["info", "--format", "{{.ServerVersion}}"], DAEMON_TIMEOUT)?;
        if docker(&["image", "inspect", kind.image], DAEMON_TIMEOUT).is_none() {
            println!("{}: pulling {}, for at most {} s", kind.name, kind.image, PULL_TIMEOUT.as_secs());
            docker(&["pull", "--quiet", kind.image], PULL_TIMEOUT)?;
        }
        let publish = format!("127.0.0.1::{}", kind.port);
        let run = [
            &["run", "--detach", "--rm", "--publish", &publish],
            kind.options,
            &[kind.image],
            kind.arguments,
        ];
        let id = docker(&run.concat(), PULL_TIMEOUT)?;
        let _watchdog = Watchdog::new(&["docker", "rm", "--force", "--volumes", &id]).ok()?;
        let mut container = Self { id, addr: SocketAddr::from(([127, 0, 0, 1], 0)), _watchdog };
        let ports = docker(&["port", &container.id, &format!("{}/tcp", kind.port)], DAEMON_TIMEOUT)?;
        container.addr = ports.lines().next()?.parse().ok()?;
        container.becomes_ready(kind).then_some(container)
    }

    /// Where the server listens, as this machine sees it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn becomes_ready(&self, kind: &Kind) -> bool {
        let deadline = Instant::now() + READY_TIMEOUT;
        let ask = [&["exec", &self.id], kind.ready].concat();
        while Instant::now() < deadline {
            if docker(&ask, DAEMON_TIMEOUT).is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(100));
        }
        false
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.id], DAEMON_TIMEOUT);
    }
}

/// What `docker` answers, if it succeeds in time.
pub fn docker(arguments: &[&str], limit: Duration) -> Option<String> {
    answer(Command::new("docker").args(arguments), limit)
}
