//! What the tests stand on: servers of their own, a proxy that loses replies, waiting, logs.

mod logs;
mod postgres;
pub mod process;
mod proxy;
#[cfg(test)]
mod proxy_tests;
mod resp;
mod server;
mod wait;

use std::{str::FromStr, sync::OnceLock};

use sqlx::{ConnectOptions, Connection as _, PgConnection, postgres::PgConnectOptions};

pub use self::{
    logs::Logs,
    postgres::PostgresServer,
    proxy::TcpProxy,
    resp::{Connection, Reply},
    server::RedisServer,
    wait::{eventually, unique},
};

const NO_SERVER: &str = "no Redis server for the tests: run `cargo xtask test`, which provides one";
const NO_POSTGRES: &str = "no PostgreSQL server for the tests: run `cargo xtask test`, which provides one";

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

impl PostgresServer {
    /// Starts a private server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a private server with these settings more: `["fsync=on"]`.
    pub fn start_with(options: &[&str]) -> Self {
        let programs = postgres::postgres_programs().unwrap_or_else(|| panic!("{NO_POSTGRES}"));
        Self::try_start(&programs, options).unwrap_or_else(|error| panic!("{NO_POSTGRES}: {error}"))
    }
}

/// A server that all tests may share, with names of their own: `DATABASE_URL`, or one for this process.
pub fn shared_postgres_url() -> String {
    static SHARED: OnceLock<PostgresServer> = OnceLock::new();
    match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => SHARED.get_or_init(PostgresServer::start).url(),
    }
}

/// A database that nobody has used yet, on the shared server.
pub async fn fresh_postgres_url() -> String {
    let options = PgConnectOptions::from_str(&shared_postgres_url()).expect("a URL of PostgreSQL");
    let mut connection = PgConnection::connect_with(&options).await.expect("the server answers");
    let name = unique("highwater");
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
    sqlx::raw_sql(create).execute(&mut connection).await.expect("the user may create databases");
    connection.close().await.expect("the server answers");
    options.database(&name).to_url_lossy().into()
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

    #[test]
    fn a_postgres_that_is_killed_keeps_what_was_committed() {
        let mut server = PostgresServer::start_with(&["fsync=on"]);
        server.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").unwrap();
        assert_eq!(server.sql("SHOW fsync").unwrap(), "on");
        let url = server.url();
        server.kill();
        assert!(server.sql("SELECT 1").is_err());
        server.restart().unwrap();
        assert_eq!(server.url(), url);
        assert_eq!(server.sql("SELECT n FROM kept").unwrap(), "7");
        let log = std::fs::read_to_string(server.dir().join("postgres.log")).unwrap();
        assert!(log.contains("was not properly shut down"), "a kill is no shutdown: {log}");
        server.shut_down().unwrap();
        assert!(server.sql("SELECT 1").is_err());
        server.restart().unwrap();
        let log = std::fs::read_to_string(server.dir().join("postgres.log")).unwrap();
        assert!(!log.contains("was not properly shut down"), "{log}");
    }

    #[tokio::test]
    async fn databases_are_apart() {
        let (one, other) = (fresh_postgres_url().await, fresh_postgres_url().await);
        assert_ne!(one, other);
        for url in [one, other] {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::raw_sql("CREATE TABLE mine ()").execute(&mut connection).await.unwrap();
        }
    }
}
