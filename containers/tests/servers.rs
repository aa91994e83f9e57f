//! The servers: each is started once, when a test first asks for it, and gone when the tests are.

use std::{env, path::Path, sync::OnceLock, thread};

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt, TestcontainersError, core::IntoContainerPort, core::WaitFor,
    runners::AsyncRunner,
};

use crate::support::{process::Watchdog, server::RedisServer};

pub static REDIS_6_2: Server = Server::program("REDIS_SERVER_6_2");
pub static REDIS_7_0: Server = Server::image(&REDIS, "redis", "7.0");
pub static REDIS_8_0: Server = Server::image(&REDIS, "redis", "8.0");
pub static REDIS_8_2: Server = Server::program("REDIS_SERVER_8_2");
pub static VALKEY_9_1: Server = Server::image(&VALKEY, "valkey/valkey", "9.1");
pub static POSTGRES_15: Server = Server::image(&POSTGRES, "postgres", "15");
pub static POSTGRES_18: Server = Server::image(&POSTGRES, "postgres", "18");

/// How the images of one kind are run.
#[derive(Debug)]
struct Kind {
    port: u16,
    /// Their one setting, where they have to have one.
    variable: Option<(&'static str, &'static str)>,
    command: &'static [&'static str],
    ready: fn() -> WaitFor,
    /// A URL up to the address, and behind it.
    url: (&'static str, &'static str),
}

static REDIS: Kind = Kind {
    port: 6379,
    variable: None,
    command: &["redis-server", "--save", "", "--appendonly", "no"],
    ready: || WaitFor::message_on_stdout("Ready to accept connections"),
    url: ("redis://", "/"),
};

static VALKEY: Kind = Kind {
    command: &["valkey-server", "--save", "", "--appendonly", "no"],
    ..Kind { ready: REDIS.ready, ..REDIS }
};

static POSTGRES: Kind = Kind {
    port: 5432,
    variable: Some(("POSTGRES_PASSWORD", "of-a-test")),
    command: &["postgres", "-c", "fsync=off", "-c", "max_connections=200"],
    // The server that sets up the data says it on the other stream.
    ready: || WaitFor::message_on_stderr("database system is ready to accept connections"),
    url: ("postgres://postgres:of-a-test@", "/postgres"),
};

/// A server that all tests of this binary share, with names of their own.
#[derive(Debug)]
pub struct Server {
    source: Source,
    started: OnceLock<Result<Started, String>>,
}

#[derive(Debug)]
enum Source {
    Image {
        kind: &'static Kind,
        name: &'static str,
        tag: &'static str,
    },
    /// The path of the program is in this variable.
    Program {
        variable: &'static str,
    },
}

#[derive(Debug)]
struct Started {
    url: String,
    _running: Running,
}

#[expect(dead_code, reason = "held for what their drop does, or what is done once they are gone")]
#[derive(Debug)]
enum Running {
    /// A static is never dropped: the watchdog removes it.
    Container(Box<ContainerAsync<GenericImage>>, Watchdog),
    Program(RedisServer),
}

impl Server {
    const fn image(kind: &'static Kind, name: &'static str, tag: &'static str) -> Self {
        Self { source: Source::Image { kind, name, tag }, started: OnceLock::new() }
    }

    const fn program(variable: &'static str) -> Self {
        Self { source: Source::Program { variable }, started: OnceLock::new() }
    }

    /// Where it is; or why this machine cannot have it.
    pub fn url(&self) -> Result<&str, &str> {
        let start = || match &self.source {
            // A thread of its own, since a test may have a runtime already.
            Source::Image { kind, name, tag } => {
                thread::scope(|scope| scope.spawn(|| start(kind, name, tag)).join())
                    .expect("the server starts")
            }
            Source::Program { variable } => {
                let program = env::var_os(variable).filter(|program| !program.is_empty());
                let program = program.ok_or_else(|| format!("{variable} is not set"))?;
                let server = RedisServer::try_start(Path::new(&program), &[]).expect("the server starts");
                Ok(Started { url: server.url(), _running: Running::Program(server) })
            }
        };
        self.started.get_or_init(start).as_ref().map(|started| &*started.url).map_err(String::as_str)
    }

    /// Where it is, for a test that is not skipped.
    pub fn address(&self) -> &str {
        self.url().expect("a test without its server is skipped")
    }

    /// Runs a test of a suite over this server, or says why it is skipped.
    pub fn test(&self, suite: &str, run: fn()) {
        match self.url() {
            Ok(_) => run(),
            Err(reason) => println!("skipped: {suite}: {reason}"),
        }
    }
}

/// Starts a container. What Docker refuses is a reason to skip; a server that does not become ready is a failure.
#[tokio::main(flavor = "current_thread")]
async fn start(kind: &Kind, name: &str, tag: &str) -> Result<Started, String> {
    let image = GenericImage::new(name, tag).with_exposed_port(kind.port.tcp()).with_wait_for((kind.ready)());
    let mut request = image.with_cmd(kind.command.iter().copied());
    if let Some((variable, value)) = kind.variable {
        request = request.with_env_var(variable, value);
    }
    let container = match request.start().await {
        Ok(container) => container,
        Err(TestcontainersError::Client(error)) => return Err(format!("{name}:{tag}: {error}")),
        Err(error) => panic!("{name}:{tag}: {error}"),
    };
    let watchdog = Watchdog::new(&["docker", "rm", "--force", "--volumes", container.id()]);
    let host = container.get_host().await.expect("it is running");
    let port = container.get_host_port_ipv4(kind.port).await.expect("it is running");
    let url = format!("{}{host}:{port}{}", kind.url.0, kind.url.1);
    Ok(Started {
        url,
        _running: Running::Container(Box::new(container), watchdog.expect("a shell can be started")),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::{Connection as _, PgConnection, Row};

    use super::*;
    use crate::support::resp::Connection;

    fn assert_redis(server: &Server, version: &str) {
        let addr = server.address().trim_start_matches("redis://").trim_end_matches('/');
        let addr = addr.replace("localhost", "127.0.0.1").parse().unwrap();
        let mut connection = Connection::open(addr, Duration::from_secs(10)).unwrap();
        let info = connection.run(&["INFO", "server"]).unwrap().text();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        // Valkey also says which Redis it stands for.
        let found = field("valkey_version:").or_else(|| field("redis_version:")).unwrap();
        assert!(found.starts_with(version), "not {version} but {found}");
    }

    #[tokio::main(flavor = "current_thread")]
    async fn assert_postgres(server: &Server, version: &str) {
        let mut connection = PgConnection::connect(server.address()).await.unwrap();
        let row = sqlx::raw_sql("SHOW server_version").fetch_one(&mut connection).await.unwrap();
        let found: String = row.get(0);
        assert!(found.starts_with(version), "not {version} but {found}");
    }

    macro_rules! versions {
        ($($test:ident $server:ident $assert:ident $version:literal;)*) => {
            $(#[test]
            fn $test() {
                $server.test("versions", || $assert(&$server, $version));
            })*
        };
    }

    versions! {
        redis_6_2 REDIS_6_2 assert_redis "6.2.";
        redis_7_0 REDIS_7_0 assert_redis "7.0.";
        redis_8_0 REDIS_8_0 assert_redis "8.0.";
        redis_8_2 REDIS_8_2 assert_redis "8.2.";
        valkey_9_1 VALKEY_9_1 assert_redis "9.1.";
        postgres_15 POSTGRES_15 assert_postgres "15.";
        postgres_18 POSTGRES_18 assert_postgres "18.";
    }
}
