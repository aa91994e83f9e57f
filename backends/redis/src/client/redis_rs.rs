//! The driver `redis`. No other file knows it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisConnectionInfo, RedisError, ServerError,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::{
    Command, Connection, Driver, Fault, Reply, Value,
    address::{Login, Node},
};

/// After this much silence the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The client of the `redis` crate.
pub struct RedisRs {
    login: RedisConnectionInfo,
    tls: bool,
}

impl Driver for RedisRs {
    type Connection = MultiplexedConnection;

    fn new(login: &Login) -> highwater::Result<Self> {
        #[cfg(feature = "tls")]
        if login.tls {
            super::install_cryptography();
        }
        let protocol = if login.resp3 { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
        let mut info = RedisConnectionInfo::default().set_db(login.db).set_protocol(protocol);
        if let Some(user) = &login.user {
            info = info.set_username(user);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password);
        }
        Ok(Self { login: info, tls: login.tls })
    }

    async fn connect(&self, node: &Node) -> Result<MultiplexedConnection, Fault> {
        let addr = match node.clone() {
            Node::Tcp(host, port) if self.tls => {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            }
            Node::Tcp(host, port) => ConnectionAddr::Tcp(host, port),
            Node::Unix(path) => ConnectionAddr::Unix(path),
        };
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE));
        let client = addr
            .into_connection_info()
            .and_then(|info| {
                redis::Client::open(info.set_redis_settings(self.login.clone()).set_tcp_settings(tcp))
            })
            .map_err(refused)?;
        // Both default to less than a blocking read takes, and their timeouts cannot be told apart from others.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(refused)
    }
}

/// Why there is no connection.
fn refused(error: RedisError) -> Fault {
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => Fault::Refused(Arc::new(error)),
        _ => match error.code() {
            Some(code) => Fault::Server(format!("{code} {}", error.detail().unwrap_or_default())),
            None => Fault::NotConnected(Some(Arc::new(error))),
        },
    }
}

impl fmt::Debug for RedisRs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in it holds the password.
        f.write_str("RedisRs")
    }
}

impl Connection for MultiplexedConnection {
    type Command = Cmd;
    type Value = redis::Value;
    type Batch = Pipeline;

    fn batch(commands: Vec<Cmd>) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline
    }

    fn commands(batch: &Pipeline) -> impl Iterator<Item = &Cmd> + Send {
        batch.cmd_iter()
    }

    async fn send(&mut self, command: &Cmd) -> Result<redis::Value, Fault> {
        self.send_packed_command(command).await.or_else(lost)
    }

    async fn send_all(&mut self, batch: &Pipeline) -> Result<Vec<redis::Value>, Fault> {
        let replies = self.send_packed_commands(batch, 0, batch.len()).await;
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
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}
