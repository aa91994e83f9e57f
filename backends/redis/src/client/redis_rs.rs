//! The driver `redis`. No other file knows it.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::select_ok;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, ServerError,
    aio::MultiplexedConnection,
    io::tcp::socket2::{SockRef, TcpKeepalive},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::AbortHandle,
};

use super::{
    Arguments, Command, Connection, Driver, Fault, ReadReply, Reply, Value,
    address::{Login, Node},
    bypass::{Bypass, Bypassed},
};

/// After this much silence the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A reply that is longer has large values.
const LARGE: usize = 1 << 20;
/// Behind a large reply, so many reads are left to the driver before the next one is looked at.
const READS_LEFT: usize = 64;

/// The client of the `redis` crate.
pub struct RedisRs {
    login: RedisConnectionInfo,
    tls: bool,
}

impl Driver for RedisRs {
    type Connection = Socket;

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

    async fn connect(&self, node: &Node) -> Result<Socket, Fault> {
        match node.clone() {
            Node::Tcp(host, port) if self.tls => self.encrypted(host, port).await,
            Node::Tcp(host, port) => self.on(tcp(&host, port).await.map_err(unreachable)?).await,
            #[cfg(unix)]
            Node::Unix(path) => {
                self.on(tokio::net::UnixStream::connect(path).await.map_err(unreachable)?).await
            }
            #[cfg(not(unix))]
            Node::Unix(_) => Err(unreachable(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl RedisRs {
    /// Takes a socket that is connected.
    async fn on(
        &self,
        socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Socket, Fault> {
        let (socket, bypass) = Bypassed::new(socket);
        let connecting = MultiplexedConnection::new_with_config(&self.login, socket, config());
        let (connection, driver) = connecting.await.map_err(refused)?;
        let task = tokio::spawn(driver).abort_handle();
        let plain = Plain { bypass, room: AtomicUsize::new(0), left: AtomicUsize::new(0), task };
        Ok(Socket { connection, plain: Some(Arc::new(plain)) })
    }

    /// The driver knows how to encrypt, and keeps its socket to itself.
    async fn encrypted(&self, host: String, port: u16) -> Result<Socket, Fault> {
        use redis::{ConnectionAddr, IntoConnectionInfo, io::tcp::TcpSettings};
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive());
        let client = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            .into_connection_info()
            .and_then(|info| {
                redis::Client::open(info.set_redis_settings(self.login.clone()).set_tcp_settings(tcp))
            })
            .map_err(refused)?;
        let connection =
            client.get_multiplexed_async_connection_with_config(&config()).await.map_err(refused)?;
        Ok(Socket { connection, plain: None })
    }
}

/// Both times default to less than a blocking read takes, and cannot be told apart from others.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE)
}

/// Connects to whichever address of the host answers first.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    let (socket, _) = select_ok(addresses.into_iter().map(|to| Box::pin(TcpStream::connect(to)))).await?;
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&keepalive())?;
    Ok(socket)
}

fn unreachable(error: io::Error) -> Fault {
    Fault::NotConnected(Some(Arc::new(error)))
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

/// A connection of the driver.
#[expect(missing_debug_implementations, reason = "nothing can name it")]
#[derive(Clone)]
pub struct Socket {
    connection: MultiplexedConnection,
    /// Unless it is encrypted.
    plain: Option<Arc<Plain>>,
}

/// What goes with a socket of ours.
struct Plain {
    bypass: Arc<Bypass>,
    /// How long the last reply was that was taken.
    room: AtomicUsize,
    /// How many more reads are left to the driver.
    left: AtomicUsize,
    task: AbortHandle,
}

impl Plain {
    /// Whether the next reply is expected to be of many small values. Of few large ones, the driver copies each once, and a
    /// reply that is kept as a whole would be copied twice.
    fn is_worth_it(&self) -> bool {
        let left = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err()
    }

    fn took(&self, len: usize) {
        let is_large = len > LARGE;
        self.room.store(if is_large { 0 } else { len }, Ordering::Relaxed);
        self.left.store(if is_large { READS_LEFT } else { 0 }, Ordering::Relaxed);
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // It waits for replies that are outstanding otherwise, and keeps the socket open.
        self.task.abort();
    }
}

impl Connection for Socket {
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
        self.connection.send_packed_command(command).await.or_else(lost)
    }

    async fn read(&mut self, command: &Cmd) -> Result<ReadReply<redis::Value>, Fault> {
        let Some(plain) = self.plain.clone().filter(|plain| plain.is_worth_it()) else {
            return self.send(command).await.map(ReadReply::Value);
        };
        plain.bypass.arm(plain.room.load(Ordering::Relaxed));
        let value = self.send(command).await?;
        Ok(match plain.bypass.taken() {
            Some(frame) => {
                plain.took(frame.len());
                ReadReply::Frame(frame)
            }
            None => ReadReply::Value(value),
        })
    }

    fn for_reads(&self) {
        if let Some(plain) = &self.plain {
            plain.bypass.wrap();
        }
    }

    async fn read_among(&mut self, command: &Cmd) -> Result<ReadReply<redis::Value>, Fault> {
        Ok(match self.send(command).await? {
            redis::Value::BulkString(frame) => ReadReply::Frame(frame.into()),
            value => ReadReply::Value(value),
        })
    }

    async fn send_all(&mut self, batch: &Pipeline) -> Result<Vec<redis::Value>, Fault> {
        let replies = self.connection.send_packed_commands(batch, 0, batch.len()).await;
        let replies = replies.map_err(|error| Fault::Lost(Some(Arc::new(error))))?;
        let is_wrapped = self.plain.as_ref().is_some_and(|plain| plain.bypass.wraps());
        if is_wrapped { replies.into_iter().map(unwrapped).collect() } else { Ok(replies) }
    }
}

/// A list that came as a text. Reads, which alone go by such a connection, have no texts for replies.
fn unwrapped(value: redis::Value) -> Result<redis::Value, Fault> {
    match value {
        redis::Value::BulkString(reply) => redis::parse_redis_value(&reply).or_else(lost),
        value => Ok(value),
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
        // Most commands of ours have no more, and a command that grows is moved a dozen times.
        <Self as Command>::sized(name, 15, 256 - name.len())
    }

    fn sized(name: &'static str, args: usize, bytes: usize) -> Self {
        let mut command = Self::with_capacity(1 + args, name.len() + bytes);
        Cmd::arg(&mut command, name);
        command
    }
}

impl Arguments for Cmd {
    fn arg(&mut self, bytes: &[u8]) {
        Cmd::arg(self, bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_replies_are_left_to_the_driver_for_a_while() {
        let task = tokio::spawn(async {}).abort_handle();
        let plain =
            Plain { bypass: Arc::default(), room: AtomicUsize::new(0), left: AtomicUsize::new(0), task };
        assert!(plain.is_worth_it());
        plain.took(LARGE);
        assert!(plain.is_worth_it(), "it was not so large");
        plain.took(LARGE + 1);
        assert!((0..READS_LEFT).all(|_| !plain.is_worth_it()));
        assert!(plain.is_worth_it(), "the next one is looked at");
    }
}
