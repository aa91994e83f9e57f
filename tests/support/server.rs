//! Private Redis servers. Also compiled into `xtask`.

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    process::Guarded,
    resp::{Connection, Reply},
};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Another process may take the port between its choice and its use.
const START_TRIES: u32 = 5;

/// A `redis-server` of one's own, on loopback and a port that the system gave, which may be stopped, killed and restarted.
/// It keeps nothing on disk unless its options say so.
#[derive(Debug)]
pub struct RedisServer {
    binary: PathBuf,
    options: Vec<String>,
    dir: TempDir,
    port: u16,
    process: Option<Guarded>,
}

impl RedisServer {
    /// Starts one with these options more, as on its command line: `["--appendonly", "yes"]`.
    pub fn try_start(binary: &Path, options: &[&str]) -> io::Result<Self> {
        let mut server = Self {
            binary: binary.into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            dir: TempDir::new()?,
            port: 0,
            process: None,
        };
        on_a_free_port(|port| {
            server.port = port;
            server.launch()
        })?;
        Ok(server)
    }

    /// Its process id, for measurements.
    #[expect(dead_code, reason = "no test asks")]
    pub fn pid(&self) -> io::Result<u32> {
        Ok(self.process.as_ref().ok_or(io::ErrorKind::NotConnected)?.pid())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr())
    }

    /// Its folder, where it puts what its options tell it to keep.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the process in its tracks: connections stay open, and nothing is answered.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused process go on.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port and folder; kills it first if it runs.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.launch()
    }

    /// A connection of one's own, for several commands.
    pub fn connect(&self) -> io::Result<Connection> {
        Connection::open(self.addr(), COMMAND_TIMEOUT)
    }

    /// Runs one command on a new connection.
    pub fn cli(&self, command: &[&str]) -> io::Result<Reply> {
        self.connect()?.run(command)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.as_ref().ok_or(io::ErrorKind::NotConnected)?.signal(signal)
    }

    fn launch(&mut self) -> io::Result<()> {
        let port = self.port.to_string();
        let mut command = Command::new(&self.binary);
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.dir.path()).args(["--logfile", "redis.log"]).args(&self.options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Guarded::spawn(&mut command)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.binary.display())))?;
        self.wait_until_ready(&mut process).map_err(|e| self.with_log(&e))?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits for an answer, and for one of this very process: the port may have gone to somebody else's server.
    fn wait_until_ready(&self, process: &mut Guarded) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = process.try_wait()? {
                return Err(io::Error::other(format!("redis-server ended at once: {status}")));
            }
            if let Ok(reply) = self.cli(&["PING"]) {
                // A server with a password answers as well.
                let ready = !reply.is_error() || reply.text().starts_with("NOAUTH");
                if ready && self.is_ours(process.pid()) {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "redis-server does not answer"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_ours(&self, pid: u32) -> bool {
        let info = self.cli(&["INFO", "server"]).map(|r| r.text()).unwrap_or_default();
        info.starts_with("NOAUTH") || info.lines().any(|line| line.trim() == format!("process_id:{pid}"))
    }

    fn with_log(&self, error: &io::Error) -> io::Error {
        let log = fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(5).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        io::Error::new(error.kind(), format!("{error}\n{}", tail.join("\n")))
    }
}

/// Launches a server on a port that is free, and on another one where that fails.
pub(super) fn on_a_free_port(mut launch: impl FnMut(u16) -> io::Result<()>) -> io::Result<()> {
    let mut last = io::Error::other("not tried");
    for _ in 0..START_TRIES {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        match launch(port) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The `redis-server` to start: `REDIS_SERVER`, or the one on the `PATH`.
pub fn redis_binary() -> Option<PathBuf> {
    if let Some(binary) = env::var_os("REDIS_SERVER").filter(|b| !b.is_empty()) {
        return Some(binary.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|file| file.is_file())
}
