//! A Docker daemon: the one that is there, or one of our own for as long as a task runs.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::install::{answer, find_program, install};
use crate::{Result, build_dir, support::process::Guarded};

/// A daemon that does not answer within this is none: nobody should wait in silence.
pub const DAEMON_TIMEOUT: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// No container outlives the daemon, and nothing of its network stays.
const END: &str = r#"
pid=$1 socket=$2 bridge=$3 folder=$4
docker --host "$socket" ps --all --quiet | xargs -r docker --host "$socket" rm --force --volumes
kill -s TERM "$pid"
n=0; while kill -s 0 "$pid" && [ $n -lt 200 ]; do sleep 0.1; n=$((n + 1)); done
kill -s KILL "$pid"
ip link delete "$bridge"
rm -rf -- "$folder"
"#;

/// A daemon that answers.
#[derive(Debug)]
pub struct Docker {
    /// Where it listens, if it is not the one that the environment leads to.
    pub host: Option<String>,
    _daemon: Option<Daemon>,
}

impl Docker {
    /// The daemon that the environment leads to.
    pub fn find() -> Option<Self> {
        let docker = Self { host: None, _daemon: None };
        docker.answers().then_some(docker)
    }

    /// A daemon of one's own, which ends with this value: as root, on a Debian. Its images stay in `target/docker`.
    pub fn start() -> Result<Self> {
        let daemon = Daemon::start()?;
        let docker = Self { host: Some(daemon.socket.clone()), _daemon: Some(daemon) };
        let deadline = Instant::now() + START_TIMEOUT;
        while !docker.answers() {
            if Instant::now() > deadline {
                return Err("the Docker daemon does not answer: see target/docker/log".into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(docker)
    }

    /// What `docker` prints, if it succeeds in time.
    pub fn run(&self, arguments: &[&str], limit: Duration) -> Option<String> {
        let mut command = Command::new("docker");
        if let Some(host) = &self.host {
            command.args(["--host", host]);
        }
        answer(command.args(arguments), limit)
    }

    /// Whether the image is here already.
    pub fn has(&self, image: &str) -> bool {
        self.run(&["image", "inspect", image], DAEMON_TIMEOUT).is_some()
    }

    fn answers(&self) -> bool {
        self.run(&["info", "--format", "{{.ServerVersion}}"], DAEMON_TIMEOUT).is_some()
    }
}

#[derive(Debug)]
struct Daemon {
    socket: String,
    process: Guarded,
    _folder: TempDir,
    /// Two daemons cannot share their images: the next run waits for this one.
    _lock: File,
}

impl Daemon {
    fn start() -> Result<Self> {
        let missing = ["dockerd", "docker", "ip"].iter().any(|program| find_program(program).is_none());
        if missing {
            install("docker", &["docker.io", "iproute2"])
                .ok_or("no Docker: start a daemon, or install `docker.io` and run this as root")?;
        }
        let home = home()?;
        let lock = lock(&home)?;
        wait_for_the_last(&home.join("pid"));
        // The path of a socket must be short, and that of the build may be long.
        let folder = TempDir::new()?;
        let socket = format!("unix://{}", folder.path().join("docker.sock").display());
        let bridge = Bridge::of(process::id());
        bridge.create()?;
        let mut dockerd = Command::new("dockerd");
        dockerd.args(["--host", &socket, "--bridge", &bridge.name]);
        dockerd.arg("--data-root").arg(home.join("data")).arg("--exec-root").arg(folder.path().join("exec"));
        dockerd.arg("--pidfile").arg(home.join("pid"));
        // Ports are forwarded by a process of its own: nothing of this machine's firewall changes.
        dockerd.args(["--iptables=false", "--ip-masq=false", "--ip-forward=false"]);
        let log = File::create(home.join("log"))?;
        dockerd.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Guarded::spawn_with(&mut dockerd, |pid| {
            let arguments = ["sh", "-c", END, "sh", pid, &socket, &bridge.name].map(OsString::from);
            arguments.into_iter().chain([folder.path().into()]).collect()
        })?;
        println!("docker: a daemon for this run");
        Ok(Self { socket, process, _folder: folder, _lock: lock })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.end();
    }
}

/// Where the images stay for the next run.
pub fn home() -> Result<PathBuf> {
    let build = build_dir()?;
    let home = build.parent().ok_or("no folder of builds")?.join("docker");
    fs::create_dir_all(&home)?;
    Ok(home)
}

fn lock(home: &Path) -> Result<File> {
    let lock = File::create(home.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            println!("docker: waiting for another run of this repository");
            lock.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(lock)
}

/// The daemon of a run that was killed may still be on its way out.
fn wait_for_the_last(pidfile: &Path) {
    let deadline = Instant::now() + START_TIMEOUT;
    let runs = || {
        let pid = fs::read_to_string(pidfile).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
        name.trim() == "dockerd"
    };
    while runs() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
}

/// A network that only one daemon has.
#[derive(Debug)]
struct Bridge {
    name: String,
    address: String,
}

impl Bridge {
    fn of(pid: u32) -> Self {
        let [_, _, high, low] = pid.to_be_bytes();
        // The upper quarter of the private network: seldom in use.
        Self {
            name: format!("highwater{}", pid % 1_000_000),
            address: format!("10.{}.{low}.1/24", 192 | high & 63),
        }
    }

    fn create(&self) -> Result {
        let ip = |arguments: &[&str]| answer(Command::new("ip").args(arguments), DAEMON_TIMEOUT);
        // What a process of this id left, if it could not clean up.
        let _ = ip(&["link", "delete", &self.name]);
        ip(&["link", "add", &self.name, "type", "bridge"])
            .and_then(|_| ip(&["address", "add", &self.address, "dev", &self.name]))
            .and_then(|_| ip(&["link", "set", &self.name, "up"]))
            .map(drop)
            .ok_or_else(|| {
                "no network for a Docker daemon: this needs root, and bridges in the kernel".into()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_side_by_side_have_networks_of_their_own() {
        let (one, other) = (Bridge::of(4_000_001), Bridge::of(4_000_002));
        assert_ne!(one.name, other.name);
        assert_ne!(one.address, other.address);
        for bridge in [one, other, Bridge::of(1), Bridge::of(u32::MAX)] {
            assert!(bridge.name.len() <= 15, "the kernel refuses {}", bridge.name);
            assert!(bridge.address.starts_with("10.") && bridge.address.ends_with(".1/24"), "{bridge:?}");
        }
    }

    #[test]
    fn a_daemon_that_is_gone_is_not_waited_for() {
        let dir = TempDir::new().unwrap();
        let start = Instant::now();
        for text in ["", "no number", &process::id().to_string()] {
            fs::write(dir.path().join("pid"), text).unwrap();
            wait_for_the_last(&dir.path().join("pid"));
        }
        wait_for_the_last(&dir.path().join("none"));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_second_run_waits_for_the_first() {
        let dir = TempDir::new().unwrap();
        let first = lock(dir.path()).unwrap();
        let second = thread::spawn({
            let dir = dir.path().to_owned();
            move || lock(&dir).unwrap()
        });
        assert!(matches!(
            File::open(dir.path().join("lock")).unwrap().try_lock(),
            Err(TryLockError::WouldBlock)
        ));
        drop(first);
        second.join().unwrap();
    }
}
