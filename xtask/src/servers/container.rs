//! A server in a container.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use super::{
    Kind,
    docker::{DAEMON_TIMEOUT, Docker},
};
use crate::support::process::Watchdog;

const PULL_TIMEOUT: Duration = Duration::from_secs(120);
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A container that is removed when this is dropped or this process is gone.
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    id: String,
    addr: SocketAddr,
    _watchdog: Watchdog,
}

impl Container {
    /// Starts a server, if the daemon has the image or can get it.
    pub fn start(kind: &Kind) -> Option<Self> {
        let docker = Docker::find()?;
        if !docker.has(kind.image) {
            println!("{}: pulling {}, for at most {} s", kind.name, kind.image, PULL_TIMEOUT.as_secs());
            docker.run(&["pull", "--quiet", kind.image], PULL_TIMEOUT)?;
        }
        let publish = format!("127.0.0.1::{}", kind.port);
        let run = [
            &["run", "--detach", "--rm", "--publish", &publish],
            kind.options,
            &[kind.image],
            kind.arguments,
        ];
        let id = docker.run(&run.concat(), PULL_TIMEOUT)?;
        let _watchdog = Watchdog::new(&["docker", "rm", "--force", "--volumes", &id]).ok()?;
        let mut container = Self { docker, id, addr: SocketAddr::from(([127, 0, 0, 1], 0)), _watchdog };
        let ports =
            container.docker.run(&["port", &container.id, &format!("{}/tcp", kind.port)], DAEMON_TIMEOUT)?;
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
            if self.docker.run(&ask, DAEMON_TIMEOUT).is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(100));
        }
        false
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.docker.run(&["rm", "--force", "--volumes", &self.id], DAEMON_TIMEOUT);
    }
}
