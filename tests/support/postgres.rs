//! Private PostgreSQL servers. Also compiled into `xtask`.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::{process::Guarded, server::on_a_free_port};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Where Debian puts the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// An immediate shutdown, which also gives back shared memory, and the folder removed.
const END: &str = r#"
kill -s QUIT "$1"
n=0; while kill -s 0 "$1" && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
kill -s KILL "$1"
rm -rf -- "$2"
"#;

/// A `postgres` of one's own, on loopback and a port that the system gave, which may be killed and restarted.
/// Nobody is asked for a password. It does not wait for the disk, unless its options say `fsync=on`.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    options: Vec<String>,
    dir: TempDir,
    owner: Option<Owner>,
    port: u16,
    process: Option<Guarded>,
}

impl PostgresServer {
    /// Starts one with these settings more: `["fsync=on", "max_connections=20"]`.
    pub fn try_start(programs: &Path, options: &[&str]) -> io::Result<Self> {
        let mut server = Self {
            programs: programs.into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            dir: TempDir::new()?,
            owner: Owner::of_the_server()?,
            port: 0,
            process: None,
        };
        server.init()?;
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

    /// Its first database, as the superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of one of its databases.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.addr())
    }

    /// Its folder: the data in `data`, and `postgres.log`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a statement prints, without names of columns.
    pub fn sql(&self, statement: &str) -> io::Result<String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--command", statement, &self.url()]);
        output_of(&mut psql)
    }

    /// Ends all of its processes at once, as a crash of the machine would. What was committed is on disk.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // It must not start another process between the list and the end.
        let _ = process.signal(Signal::STOP);
        let children = children_of(process.pid());
        process.kill();
        for child in &children {
            let _ = kill_process(*child, Signal::KILL);
        }
        // A new server refuses a folder in which an old process is still at work.
        let deadline = Instant::now() + STOP_TIMEOUT;
        while children.iter().any(|child| is_alive(*child)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it as an operator would: clients are sent away at once, and nothing is left to recover.
    pub fn shut_down(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::INT)?;
            process.wait()?;
        }
        Ok(())
    }

    /// Starts it again on the same port and data; kills it first if it runs.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.launch()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("postgres.log")
    }

    fn init(&self) -> io::Result<()> {
        if let Some(owner) = &self.owner {
            chown(self.dir.path(), Some(owner.uid), Some(owner.gid))?;
        }
        let mut initdb = self.command("initdb");
        initdb.arg("--pgdata").arg(self.data()).args(["--username", "postgres", "--auth", "trust"]);
        initdb.args(["--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"]);
        output_of(&mut initdb).map(drop)
    }

    fn launch(&mut self) -> io::Result<()> {
        let log = fs::File::create(self.log())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        for option in
            ["fsync=off", "max_connections=200"].into_iter().chain(self.options.iter().map(|o| &**o))
        {
            command.args(["-c", option]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let dir = self.dir.path().as_os_str();
        let mut process = Guarded::spawn_with(&mut command, |pid| {
            ["sh", "-c", END, "sh", pid].map(OsStr::new).into_iter().chain([dir]).map(Into::into).collect()
        })
        .map_err(|e| named(&self.programs.join("postgres"), &e))?;
        self.wait_until_ready(&mut process).map_err(|e| self.with_log(&e))?;
        self.process = Some(process);
        Ok(())
    }

    fn wait_until_ready(&self, process: &mut Guarded) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = process.try_wait()? {
                return Err(io::Error::other(format!("postgres ended at once: {status}")));
            }
            // What a server that was killed left behind has another process id.
            let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            if is_ready(&text, process.pid()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "postgres does not become ready"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// One of the programs. They refuse to run as root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.dir.path()).env("LC_ALL", "C");
        if let Some(owner) = &self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    fn with_log(&self, error: &io::Error) -> io::Error {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let start = log.lines().count().saturating_sub(5);
        let tail: Vec<_> = log.lines().skip(start).collect();
        io::Error::new(error.kind(), format!("{error}\n{}", tail.join("\n")))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.end();
        }
    }
}

/// Whom the server runs as, where this process is root.
#[derive(Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of_the_server() -> io::Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        ["postgres", "nobody"].iter().find_map(|name| Self::find(&users, name)).map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "postgres refuses root, and there is no user `postgres`")
        })
    }

    /// A user in the text of `/etc/passwd`.
    fn find(users: &str, name: &str) -> Option<Self> {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.into_iter().find(|fields| fields[0] == name)?;
        Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }
}

/// What the server says of itself in its folder: its process id in the first line, its state in the eighth.
fn is_ready(postmaster: &str, pid: u32) -> bool {
    let mut lines = postmaster.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}

fn children_of(pid: u32) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

/// Whether it still runs. Until somebody waits for it, a dead process has its id.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// What a command prints, or what it complains of.
fn output_of(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| named(Path::new(command.get_program()), &e))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

fn named(program: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", program.display()))
}

/// The folder of the programs to use: `POSTGRES_BIN`, one on the `PATH`, or the newest that Debian has installed.
pub fn postgres_programs() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("POSTGRES_BIN").filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    find_programs(env::split_paths(&path), Path::new(DEBIAN))
}

fn find_programs(mut path: impl Iterator<Item = PathBuf>, debian: &Path) -> Option<PathBuf> {
    // A link leads to the folder that has all of them.
    let linked = path.find_map(|dir| Some(dir.join("initdb").canonicalize().ok()?.parent()?.to_owned()));
    let versions = fs::read_dir(debian).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let installed = versions.filter(|version| version.join("bin/initdb").is_file());
    let number = |version: &PathBuf| version.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    linked.or_else(|| Some(installed.max_by_key(number)?.join("bin")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_process_is_ready() {
        let text = "41\n/data\n1790000000\n5432\n\n127.0.0.1\n  5432001  3\nready   \n";
        assert!(is_ready(text, 41));
        assert!(!is_ready(text, 42));
        assert!(!is_ready(&text.replace("ready", "starting"), 41));
        assert!(!is_ready("41\n/data\n", 41));
    }

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "root:x:0:0::/:/bin/sh\npostgres2:x:7:7::/:\npostgres:x:101:104::/var/lib:/bin/bash";
        assert!(matches!(Owner::find(users, "postgres"), Some(Owner { uid: 101, gid: 104 })));
        assert!(Owner::find(users, "nobody").is_none());
    }

    #[test]
    fn the_newest_version_is_the_one_with_the_greatest_number() {
        let debian = TempDir::new().unwrap();
        for version in ["9", "15", "18", "old", "20"] {
            fs::create_dir_all(debian.path().join(version).join("bin")).unwrap();
        }
        for version in ["9", "15", "18", "old"] {
            fs::write(debian.path().join(version).join("bin/initdb"), "").unwrap();
        }
        let newest = debian.path().join("18/bin");
        assert_eq!(find_programs([].into_iter(), debian.path()), Some(newest));
        let link = debian.path().join("initdb");
        std::os::unix::fs::symlink(debian.path().join("15/bin/initdb"), link).unwrap();
        let path = [debian.path().join("none"), debian.path().to_owned()];
        let linked = debian.path().join("15/bin").canonicalize().unwrap();
        assert_eq!(find_programs(path.into_iter(), debian.path()), Some(linked));
        assert_eq!(find_programs([].into_iter(), Path::new("/none")), None);
    }
}
