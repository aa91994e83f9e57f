//! Child processes that do not outlive this one. Also compiled into `xtask`: standard library only, and no tests' types.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Runs a command when this process is gone, however it went: a `Drop` does not run on `SIGKILL` or Ctrl-C, and never
/// for a static.
///
/// It is a shell that waits for the end of its standard input, whose other end only this process holds.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Runs `command` when this process is gone; never, if the watchdog is dropped before.
    pub fn new(command: &[impl AsRef<OsStr>]) -> io::Result<Self> {
        Command::new("sh")
            .args(["-c", "read -r _; \"$@\"", "sh"])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Self)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Killed before its standard input closes, so that it cannot act on a process id that was given out again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child in a process group of its own, ended with all that it started when this is dropped or this process is gone.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    watchdog: Option<Watchdog>,
}

impl Guarded {
    /// Starts the command.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::spawn_with(command, |pid| {
            ["kill", "-s", "KILL", "--", &format!("-{pid}")].map(OsString::from).into()
        })
    }

    /// Starts the command, and has a way of its own, for its process id, to end it when this process is gone.
    pub fn spawn_with(command: &mut Command, end: impl FnOnce(&str) -> Vec<OsString>) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let mut guarded = Self { child, watchdog: None };
        let end = end(&guarded.child.id().to_string());
        guarded.watchdog = Some(Watchdog::new(&end)?);
        Ok(guarded)
    }

    /// The process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.raw_pid(), signal)?)
    }

    /// Ends it in the way that it was given, and waits for both.
    pub fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(mut watchdog) = self.watchdog.take()
        {
            drop(watchdog.0.stdin.take());
            // Waited for first: until then its id is in use, and the way may be to wait for that.
            let _ = self.child.wait();
            let _ = watchdog.0.wait();
        }
        self.kill();
    }

    /// Ends the process and all of its group at once, and waits for it.
    pub fn kill(&mut self) {
        self.watchdog = None;
        // Once it was waited for, its id may belong to somebody else.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(self.raw_pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        time::Duration,
    };

    use super::*;

    #[test]
    fn what_a_child_started_ends_with_it() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 600 & echo $!; wait"]).stdout(Stdio::piped());
        let mut child = Guarded::spawn(&mut shell).unwrap();
        let mut line = String::new();
        BufReader::new(child.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        rustix::process::test_kill_process(grandchild).unwrap();
        drop(child);
        for _ in 0..200 {
            // Until somebody waits for it, a dead process still has its id.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", grandchild.as_raw_nonzero()));
            if rustix::process::test_kill_process(grandchild).is_err()
                || stat.is_ok_and(|s| s.contains(") Z "))
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the grandchild lives");
    }

    #[test]
    fn a_child_ends_in_the_way_that_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo asked > asked; exit' TERM; echo ready > ready; while :; do sleep 0.01; done";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(dir.path());
        let ask = |pid: &str| ["kill", "-s", "TERM", pid].map(OsString::from).into();
        let mut child = Guarded::spawn_with(&mut shell, ask).unwrap();
        while !dir.path().join("ready").exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.end();
        assert!(dir.path().join("asked").exists(), "it was killed without being asked");
    }

    #[test]
    fn a_watchdog_acts_when_its_pipe_closes() {
        let mut sleeper = Guarded::spawn(Command::new("sleep").arg("600")).unwrap();
        let group = format!("-{}", sleeper.pid());
        let mut watchdog = Watchdog::new(&["kill", "-s", "KILL", "--", &group]).unwrap();
        // What the system does when this process is gone.
        drop(watchdog.0.stdin.take());
        assert!(!sleeper.wait().unwrap().success());
    }
}
