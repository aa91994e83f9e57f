//! What the tests stand on: servers of their own, a proxy that loses replies, waiting, logs.

mod logs;
mod process;
mod proxy;
mod resp;
mod server;
mod wait;

use std::sync::OnceLock;

pub use self::{
    logs::Logs,
    proxy::TcpProxy,
    resp::{Connection, Reply},
    server::RedisServer,
    wait::{eventually, unique},
};

const NO_SERVER: &str = "no Redis server for the tests: run `cargo xtask test`, which provides one";

impl RedisServer {
    /// Starts a private server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a private server with these options more, as on its command line.
    pub fn start_with(options: &[&str]) -> Self {
        let binary = server::redis_binary().unwrap_or_else(|| panic!("{NO_SERVER}"));
        Self::try_start(&binary, options).unwrap_or_else(|error| panic!("{NO_SERVER}: {error}"))
    }
}

/// A server that all tests may share, with names of their own: `REDIS_URL`, or one for this process.
pub fn shared_redis_url() -> String {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    match std::env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => SHARED.get_or_init(RedisServer::start).url(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_private_and_can_be_restarted() {
        let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        assert_eq!(server.cli(&["SET", "key", "value"]).unwrap().text(), "OK");
        assert!(server.dir().join("appendonlydir").exists() || server.dir().join("appendonly.aof").exists());
        server.kill();
        assert!(server.cli(&["PING"]).is_err());
        server.restart().unwrap();
        assert_eq!(server.cli(&["GET", "key"]).unwrap().text(), "value");
        let mut connection: Connection = server.connect().unwrap();
        assert_eq!(connection.run(&["GET", "none"]).unwrap(), Reply::Nil);
        assert_ne!(server.url(), RedisServer::start().url());
    }

    #[test]
    fn a_paused_server_keeps_its_connections() {
        let server = RedisServer::start();
        let mut connection = server.connect().unwrap();
        server.pause().unwrap();
        server.resume().unwrap();
        assert_eq!(connection.run(&["PING"]).unwrap().text(), "PONG");
        assert!(!shared_redis_url().is_empty());
    }
}
