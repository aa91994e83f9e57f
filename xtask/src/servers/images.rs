//! Images of the servers, from Debian's packages, under the names that the tests ask for.
//!
//! Where Docker's registry is in reach nobody needs them: the same tests then pull the official images.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    docker::{self, Docker},
    install::{answer, apt, can_install, find_program, install},
};
use crate::Result;

const ENTRYPOINT: &str = include_str!("../../images/entrypoint.sh");
const APT_TIMEOUT: Duration = Duration::from_secs(60);
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(600);
const IMPORT_TIMEOUT: Duration = Duration::from_secs(120);

/// One system holds all servers of a release of Debian; its images differ in what they start.
const RELEASES: &[Release] = &[
    Release {
        name: "bookworm",
        packages: "redis-server,postgresql-15",
        images: &[
            Image { names: &["redis:7.0", "redis:7"], server: "redis-server", port: 6379, programs: "" },
            Image {
                names: &["postgres:15"],
                server: "postgres",
                port: 5432,
                programs: ":/usr/lib/postgresql/15/bin",
            },
        ],
    },
    Release {
        name: "sid",
        packages: "redis-server,valkey-server,postgresql-18",
        images: &[
            Image { names: &["redis:8.0"], server: "redis-server", port: 6379, programs: "" },
            Image { names: &["valkey/valkey:9.1"], server: "valkey-server", port: 6379, programs: "" },
            Image {
                names: &["postgres:18"],
                server: "postgres",
                port: 5432,
                programs: ":/usr/lib/postgresql/18/bin",
            },
        ],
    },
];

/// What a server does not need, and what a system should not share.
const LEFT_OUT: &[&str] = &[
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./usr/share/doc/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/lib/postgresql/*",
];

#[derive(Debug)]
struct Release {
    name: &'static str,
    packages: &'static str,
    images: &'static [Image],
}

#[derive(Debug)]
struct Image {
    names: &'static [&'static str],
    server: &'static str,
    port: u16,
    /// Where its programs are, if not in the usual places.
    programs: &'static str,
}

/// Builds the images that the daemon does not have.
pub fn build(docker: &Docker) -> Result {
    let missing: Vec<_> = RELEASES.iter().filter(|release| !release.is_complete(docker)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        return Err("images can be built by root on a Debian; elsewhere the tests pull them".into());
    }
    if find_program("debootstrap").is_none() {
        install("images", &["debootstrap"]).ok_or("debootstrap cannot be installed")?;
    }
    apt(&["update"], APT_TIMEOUT).ok_or("`apt-get update` failed")?;
    let format = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(LABEL)";
    let targets = apt(&["indextargets", "--format", format, "Created-By: Packages"], APT_TIMEOUT);
    let targets = targets.unwrap_or_default();
    let mirror = mirror(&targets).ok_or("apt has no source of Debian itself: add one")?;
    thread::scope(|scope| {
        let builds: Vec<_> =
            missing.iter().map(|release| scope.spawn(|| release.build(docker, mirror))).collect();
        builds.into_iter().try_for_each(|build| build.join().map_err(|_| "a build panicked")?)
    })
}

impl Release {
    fn is_complete(&self, docker: &Docker) -> bool {
        self.images.iter().flat_map(|image| image.names).all(|name| docker.has(name))
    }

    fn build(&self, docker: &Docker, mirror: &str) -> Result {
        let (start, name) = (Instant::now(), self.name);
        let fail = |what: &str| format!("images of {name}: {what} failed");
        println!("images: building those of {name}, which takes about a minute");
        let folder = TempDir::new_in(docker::home()?)?;
        let (system, archive) = (folder.path().join("system"), folder.path().join("system.tar"));
        // What is mounted for this goes with its namespace, also if it is killed.
        let mut bootstrap = Command::new("unshare");
        bootstrap.args(["--mount", "debootstrap", "--variant=minbase"]);
        // What is lost with the machine is built again: it need not wait for the disk.
        bootstrap.env("DPKG_FORCE", "unsafe-io");
        bootstrap.arg(format!("--include={}", self.packages)).arg(name).arg(&system).arg(mirror);
        answer(&mut bootstrap, BOOTSTRAP_TIMEOUT).ok_or_else(|| fail("debootstrap"))?;
        let entrypoint = system.join("usr/local/bin/docker-entrypoint.sh");
        fs::write(&entrypoint, ENTRYPOINT)?;
        fs::set_permissions(&entrypoint, fs::Permissions::from_mode(0o755))?;
        let mut tar = Command::new("tar");
        tar.arg("--create")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(&system)
            .arg("--numeric-owner");
        tar.args(LEFT_OUT.iter().map(|path| format!("--exclude={path}"))).arg(".");
        answer(&mut tar, IMPORT_TIMEOUT).ok_or_else(|| fail("tar"))?;
        for image in self.images {
            image.import(docker, &archive).ok_or_else(|| fail("`docker import`"))?;
        }
        println!("images: those of {name} are built, {:.0?}", start.elapsed());
        Ok(())
    }
}

impl Image {
    fn import(&self, docker: &Docker, archive: &Path) -> Option<()> {
        let changes = self.changes();
        let changes = changes.iter().flat_map(|change| ["--change", change]);
        let (first, others) = self.names.split_first()?;
        let import = ["import"].into_iter().chain(changes).chain([archive.to_str()?, first]);
        docker.run(&import.collect::<Vec<_>>(), IMPORT_TIMEOUT)?;
        others.iter().try_for_each(|name| docker.run(&["tag", first, name], IMPORT_TIMEOUT).map(drop))
    }

    fn changes(&self) -> [String; 4] {
        let path = format!("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin{}", self.programs);
        [
            "ENTRYPOINT [\"docker-entrypoint.sh\"]".to_owned(),
            format!("CMD [\"{}\"]", self.server),
            format!("EXPOSE {}", self.port),
            format!("ENV PATH={path} LANG=C.UTF-8"),
        ]
    }
}

/// Where this machine gets Debian itself from, and not its updates.
fn mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [uri, codename, "main", "Debian"] if !codename.contains('-') => Some(uri),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_debian_itself() {
        let targets = "\
https://example.org/tools tools main Tools
https://example.org/security bookworm-security main Debian-Security
https://example.org/debian bookworm-updates main Debian
https://example.org/debian bookworm contrib Debian
https://example.org/pool bookworm main Debian
https://example.org/other trixie main Debian";
        assert_eq!(mirror(targets), Some("https://example.org/pool"));
        assert_eq!(mirror("https://example.org/tools tools main Tools"), None);
        assert_eq!(mirror(""), None);
    }

    #[test]
    fn every_image_has_a_name_of_its_own_and_a_server_that_is_installed() {
        let mut names = BTreeSet::new();
        for release in RELEASES {
            for image in release.images {
                assert!(image.names.iter().all(|name| names.insert(*name)), "{image:?}");
                let package = image.server.strip_suffix("-server").unwrap_or("postgresql");
                assert!(release.packages.contains(package), "{image:?}");
                assert!(ENTRYPOINT.contains(image.server), "{image:?}");
            }
        }
    }
}
