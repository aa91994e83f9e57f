//! The driver `fred`. No other file knows it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use fred::{
    clients::{Client, Pipeline},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, StreamsInterface},
    types::{
        ClusterHash, ConnectHandle, CustomCommand, Resp3Frame, RespVersion,
        config::{Config, ConnectionConfig, ServerConfig, TcpConfig},
        streams::XID,
    },
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, join, join_all},
};
use socket2::TcpKeepalive;
use tokio::task::AbortHandle;

use super::{
    Arguments, Command, Connection, Driver, Fault, Reply, Value,
    address::{Login, Node},
};

/// After this much silence the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Appends an entry.
const APPEND: &str = "XADD";

/// The client of the `fred` crate.
pub struct Fred {
    config: Config,
    db: i64,
}

impl Driver for Fred {
    type Connection = Socket;

    fn new(login: &Login) -> highwater::Result<Self> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "only TLS adds to it"))]
        let mut config = Config {
            username: login.user.clone(),
            password: login.password.clone(),
            version: if login.resp3 { RespVersion::RESP3 } else { RespVersion::RESP2 },
            ..Config::default()
        };
        #[cfg(feature = "tls")]
        if login.tls {
            super::install_cryptography();
            let connector = fred::types::config::TlsConnector::default_rustls().map_err(|error| {
                highwater::Error::invalid("the certificates that the machine trusts cannot be read")
                    .with_source(error)
            })?;
            config.tls = Some(connector.into());
        }
        Ok(Self { config, db: login.db })
    }

    async fn connect(&self, node: &Node) -> Result<Socket, Fault> {
        let server = match node.clone() {
            Node::Tcp(host, port) => ServerConfig::new_centralized(host, port),
            Node::Unix(path) => ServerConfig::Unix { path },
        };
        let tcp = TcpConfig {
            nodelay: Some(true),
            keepalive: Some(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE)),
            ..TcpConfig::default()
        };
        // Both times default to ones that no setting of ours names; zero is none.
        let config = ConnectionConfig {
            connection_timeout: Duration::ZERO,
            internal_command_timeout: Duration::ZERO,
            max_command_attempts: 1,
            tcp,
            ..ConnectionConfig::default()
        };
        // Without a policy it does not connect again, and so has nothing to send a command twice on.
        let client = Client::new(Config { server, ..self.config.clone() }, None, Some(config), None);
        let mut connected = client.reconnect_rx();
        let mut socket = Socket::new(client);
        tokio::select! {
            biased;
            failure = &mut socket.ended => return Err(failure.map_or(Fault::NotConnected(None), refused)),
            _ = connected.recv() => {}
        }
        if self.db != 0 {
            // The driver has room for the first 256 only.
            let mut select = Cmd::new("SELECT");
            select.arg(self.db.to_string().as_bytes());
            socket.send(&select).await?.checked().map_err(Fault::Server)?;
        }
        Ok(socket)
    }
}

/// Why there is no connection.
fn refused(error: Error) -> Fault {
    // An error of the server is told from one of the driver's by the code that it begins with.
    let code = error.details().split(' ').next().unwrap_or_default();
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
    match error.kind() {
        ErrorKind::Auth => Fault::Refused(Arc::new(error)),
        _ if is_code => Fault::Server(error.details().to_owned()),
        _ => Fault::NotConnected(Some(Arc::new(error))),
    }
}

impl fmt::Debug for Fred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in it holds the password.
        f.write_str("Fred")
    }
}

/// A client that has one socket and never another.
#[expect(missing_debug_implementations, reason = "nothing can name it")]
#[derive(Clone)]
pub struct Socket {
    client: Client,
    /// Ends with the task that drives the socket, and says why. What is sent later would wait for ever.
    ended: Shared<BoxFuture<'static, Option<Error>>>,
    _task: Arc<Task>,
}

/// The task owns the socket. It does not end by itself when nobody is left to send anything.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Socket {
    fn new(client: Client) -> Self {
        let task: ConnectHandle = client.connect();
        let _task = Arc::new(Task(task.abort_handle()));
        let ended = task.map(|result| result.ok().and_then(Result::err)).boxed().shared();
        Self { client, ended, _task }
    }
}

impl Connection for Socket {
    type Command = Cmd;
    type Value = Resp3Frame;
    type Batch = Vec<Cmd>;

    fn batch(commands: Vec<Cmd>) -> Vec<Cmd> {
        commands
    }

    fn commands(batch: &Vec<Cmd>) -> impl Iterator<Item = &Cmd> + Send {
        batch.iter()
    }

    async fn send(&mut self, command: &Cmd) -> Result<Resp3Frame, Fault> {
        let name = CustomCommand::new_static(command.name, ClusterHash::FirstKey, false);
        let reply = self.client.custom_raw(name, command.args.clone());
        tokio::select! {
            biased;
            reply = reply => reply.map_err(|error| Fault::Lost(Some(Arc::new(error)))),
            failure = self.ended.clone() => Err(Fault::Lost(failure.map(|error| Arc::new(error) as _))),
        }
    }

    async fn send_all(&mut self, batch: &Vec<Cmd>) -> Result<Vec<Resp3Frame>, Fault> {
        if let [first @ .., last] = &batch[..]
            && first.len() > 1
            && batch.iter().all(|command| command.name == APPEND)
        {
            return self.append_all(first, last).await;
        }
        // Its pipelines open the replies and make errors of some.
        let sent = batch.iter().map(|command| {
            let mut socket = self.clone();
            async move { socket.send(command).await }
        });
        join_all(sent).await.into_iter().collect()
    }
}

impl Socket {
    /// Appends in one go. The driver writes to the socket after each command that it has no function for, and after each
    /// that has none behind it in the queue: so the last goes behind a pipeline of the others, which has two or more.
    async fn append_all(&self, first: &[Cmd], last: &Cmd) -> Result<Vec<Resp3Frame>, Fault> {
        let pipeline = self.client.pipeline();
        for command in first {
            command.append_to(&pipeline).await.map_err(|error| Fault::Lost(Some(Arc::new(error))))?;
        }
        let mut behind = self.clone();
        let (replies, last) = tokio::select! {
            biased;
            sent = join(pipeline.try_all(), behind.send(last)) => sent,
            failure = self.ended.clone() => return Err(Fault::Lost(failure.map(|error| Arc::new(error) as _))),
        };
        if replies.len() < first.len() {
            // One error for all of them.
            let error = replies.into_iter().find_map(Result::err);
            return Err(Fault::Lost(error.map(|error| Arc::new(error) as _)));
        }
        replies.into_iter().map(|reply| Ok(closed(reply))).chain([last]).collect()
    }
}

/// What the driver made of the reply to an appended entry, as it came.
fn closed(reply: Result<Option<Bytes>, Error>) -> Resp3Frame {
    match reply {
        Ok(Some(data)) => Resp3Frame::BlobString { data, attributes: None },
        Ok(None) => Resp3Frame::Null,
        Err(error) => Resp3Frame::SimpleError { data: error.details().into(), attributes: None },
    }
}

/// A command in the driver's form: its name, and arguments that are shared and not copied when it is sent.
#[expect(missing_debug_implementations, reason = "nothing can name it")]
pub struct Cmd {
    name: &'static str,
    args: Vec<Bytes>,
    /// What the next arguments are copied to: each by itself would take two allocations.
    room: BytesMut,
}

impl Cmd {
    /// Puts this, which appends an entry, into a pipeline: a stream, an id, and fields in pairs.
    async fn append_to(&self, pipeline: &Pipeline<Client>) -> Result<(), Error> {
        let mut args = self.args.iter().cloned();
        let (stream, id) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
        let id = XID::from(&*String::from_utf8_lossy(&id));
        let fields: Vec<_> = std::iter::from_fn(|| args.next().zip(args.next())).collect();
        pipeline.xadd(stream, false, None::<()>, id, fields).await
    }
}

impl Command for Cmd {
    fn new(name: &'static str) -> Self {
        // Most commands of ours have no more.
        Self::sized(name, 15, 256)
    }

    fn sized(name: &'static str, args: usize, bytes: usize) -> Self {
        // What is longer than an id is a payload, most often, and shared.
        let room = BytesMut::with_capacity(bytes.min(48 * args));
        Self { name, args: Vec::with_capacity(args), room }
    }

    fn shared(&mut self, bytes: &Bytes) {
        self.args.push(bytes.clone());
    }
}

impl Arguments for Cmd {
    fn arg(&mut self, bytes: &[u8]) {
        self.room.extend_from_slice(bytes);
        self.args.push(self.room.split().freeze());
    }
}

impl Value for Resp3Frame {
    fn open(self) -> Reply<Self> {
        match self {
            Self::BlobString { data, .. }
            | Self::SimpleString { data, .. }
            | Self::VerbatimString { data, .. } => Reply::Bytes(data),
            Self::Array { data, .. } => Reply::List(data),
            Self::Set { data, .. } => Reply::List(data.into_iter().collect()),
            Self::Number { data, .. } => Reply::Int(data),
            Self::Null => Reply::Nil,
            Self::Map { data, .. } => Reply::Map(data.into_iter().collect()),
            Self::SimpleError { data, .. } => Reply::Error(data.to_string()),
            Self::BlobError { data, .. } => Reply::Error(String::from_utf8_lossy(&data).into_owned()),
            Self::Boolean { data, .. } => Reply::Int(data.into()),
            _ => Reply::Other,
        }
    }

    fn checked(self) -> Result<Self, String> {
        match self {
            Self::SimpleError { data, .. } => Err(data.to_string()),
            Self::BlobError { data, .. } => Err(String::from_utf8_lossy(&data).into_owned()),
            value => Ok(value),
        }
    }
}
