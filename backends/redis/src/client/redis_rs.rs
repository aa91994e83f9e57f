//! The driver `redis`. No other file knows it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use highwater::{Error, ErrorKind};
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisError, ServerError,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::{Client, Command, Connection, Fault, Reply, Value};
use crate::settings::Settings;

/// After this much silence the kernel asks whether the other side is still there.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(15);

/// The client of the `redis` crate.
pub struct RedisRs(redis::Client);

impl Client for RedisRs {
    type Connection = MultiplexedConnection;

    fn new(settings: &Settings) -> highwater::Result<Self> {
        // The driver's error is left out: it may quote the URL.
        let invalid = |_| {
            Error::invalid(
                "the URL of the server cannot be read: write `redis://[user:password@]host[:port][/db]`, `rediss://…` \
                 (feature `tls`) or `redis+unix:///path`",
            )
        };
        let secure = ["rediss://", "valkeys://"].iter().any(|scheme| settings.url.starts_with(scheme));
        if secure && cfg!(not(feature = "tls")) {
            return Err(Error::new(ErrorKind::Unsupported, "`rediss://` needs the feature `tls`"));
        }
        #[cfg(feature = "tls")]
        if secure && rustls::crypto::CryptoProvider::get_default().is_none() {
            // The driver would panic without one. If somebody else was faster, theirs is as good.
            rustls::crypto::ring::default_provider().install_default().ok();
        }
        let client = redis::Client::open(&*settings.url).map_err(invalid)?;
        let info = client.get_connection_info().clone();
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE));
        redis::Client::open(info.set_tcp_settings(tcp)).map(Self).map_err(invalid)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Fault> {
        // Both default to less than a blocking read takes, and their timeouts cannot be told apart from others.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        self.0.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| {
            match error.kind() {
                redis::ErrorKind::AuthenticationFailed => Fault::Refused(Arc::new(error)),
                _ => match error.code() {
                    Some(code) => Fault::Server(format!("{code} {}", error.detail().unwrap_or_default())),
                    None => Fault::NotConnected(Some(Arc::new(error))),
                },
            }
        })
    }
}

impl fmt::Debug for RedisRs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address alone: what lies beside it holds the password.
        write!(f, "RedisRs({})", self.0.get_connection_info().addr())
    }
}

impl Connection for MultiplexedConnection {
    type Command = Cmd;
    type Value = redis::Value;

    async fn send(&mut self, command: &Cmd) -> Result<redis::Value, Fault> {
        self.send_packed_command(command).await.or_else(lost)
    }

    async fn send_all(&mut self, commands: Vec<Cmd>) -> Result<Vec<redis::Value>, Fault> {
        let count = commands.len();
        let mut pipeline = Pipeline::with_capacity(count);
        for command in commands {
            pipeline.add_command(command);
        }
        let replies = self.send_packed_commands(&pipeline, 0, count).await;
        replies.map_err(|error| Fault::Lost(Some(Arc::new(error))))
    }
}

/// Error replies come as values or as errors, depending on where the driver noticed them.
fn lost(error: RedisError) -> Result<redis::Value, Fault> {
    match ServerError::try_from(error) {
        Ok(reply) => Ok(redis::Value::ServerError(reply)),
        Err(error) => Err(Fault::Lost(Some(Arc::new(error)))),
    }
}

impl Command for Cmd {
    fn new(name: &'static str) -> Self {
        redis::cmd(name)
    }

    fn arg(&mut self, bytes: &[u8]) {
        Cmd::arg(self, bytes);
    }

    fn shared(&mut self, bytes: &Bytes) {
        Cmd::arg(self, &**bytes);
    }
}

impl Value for redis::Value {
    fn open(self) -> Reply<Self> {
        match self {
            Self::BulkString(bytes) => Reply::Bytes(bytes.into()),
            Self::Array(items) | Self::Set(items) => Reply::List(items),
            Self::Int(number) => Reply::Int(number),
            Self::Nil => Reply::Nil,
            Self::Map(items) => Reply::Map(items),
            Self::SimpleString(text) | Self::VerbatimString { text, .. } => Reply::Bytes(text.into()),
            Self::Okay => Reply::Bytes(Bytes::from_static(b"OK")),
            Self::ServerError(error) => Reply::Error(text_of(&error)),
            Self::Attribute { data, .. } => data.open(),
            Self::Boolean(truth) => Reply::Int(truth.into()),
            _ => Reply::Other,
        }
    }

    fn checked(self) -> Result<Self, String> {
        match self {
            Self::ServerError(error) => Err(text_of(&error)),
            value => Ok(value),
        }
    }
}

fn text_of(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g18_urls_are_checked_and_no_secret_is_shown() {
        for (url, kind) in [
            ("redis://localhost", None),
            ("redis://user:hunter2@localhost:7000/3?protocol=resp3", None),
            ("redis+unix:///tmp/socket?pass=hunter2", None),
            ("rediss://:hunter2@localhost", (!cfg!(feature = "tls")).then_some(ErrorKind::Unsupported)),
            ("http://:hunter2@localhost", Some(ErrorKind::Invalid)),
            ("redis://:hunter2@localhost/db", Some(ErrorKind::Invalid)),
            ("hunter2", Some(ErrorKind::Invalid)),
            ("", Some(ErrorKind::Invalid)),
        ] {
            let client = RedisRs::new(&Settings::new(url));
            assert_eq!(client.as_ref().err().map(Error::kind), kind, "{url}");
            assert!(!format!("{client:?}").contains("hunter2"), "{url}: {client:?}");
        }
    }
}
