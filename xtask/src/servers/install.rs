//! Programs that a machine does not have yet, and commands that must answer in time.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::support::process::Guarded;

const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether packages can be installed here without a question: as root, on a Debian.
pub fn can_install() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/etc/debian_version").exists()
}

/// Installs packages for something, where that takes no question.
pub fn install(what: &str, packages: &[&str]) -> Option<()> {
    if !can_install() {
        return None;
    }
    println!("{what}: installing {}, for at most {} s", packages.join(" "), INSTALL_TIMEOUT.as_secs());
    apt(&["update"], INSTALL_TIMEOUT)?;
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat(), INSTALL_TIMEOUT).map(drop)
}

/// Stops the service that a package started at once: the tests use servers of their own.
pub fn stop_service(service: &str) {
    let _ = answer(Command::new("service").args([service, "stop"]), STOP_TIMEOUT);
}

/// What `apt-get` prints, if it succeeds in time. It asks nothing.
pub fn apt(arguments: &[&str], limit: Duration) -> Option<String> {
    // It refuses to run beside itself.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=60"]);
    answer(apt.args(arguments), limit)
}

/// A program on the `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// What a command prints, if it succeeds in time. A command that does not is ended.
pub fn answer(command: &mut Command, limit: Duration) -> Option<String> {
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
        let (start, limit) = (Instant::now(), Duration::from_secs(5));
        assert_eq!(answer(Command::new("sleep").arg("600"), Duration::from_millis(100)), None);
        assert!(start.elapsed() < limit);
        assert_eq!(answer(Command::new("echo").arg("yes"), limit).as_deref(), Some("yes"));
        assert_eq!(answer(&mut Command::new("false"), limit), None);
    }
}
