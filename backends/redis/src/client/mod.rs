//! The seam between this crate and a driver: connect, send a command, send a batch. All else is written once, above it.
//!
//! The traits are sealed: they are public so that [`Redis`](crate::Redis) can be generic over them, and not reachable.

mod address;
#[cfg(feature = "redis-rs")]
mod bypass;
mod cluster;
mod dialer;
mod frame;
#[cfg(feature = "fred")]
mod fred;
mod link;
mod pool;
#[cfg(feature = "redis-rs")]
mod redis_rs;
mod tail;
mod waiter;

use std::{error::Error as StdError, fmt, sync::Arc};

use bytes::Bytes;

pub(crate) use frame::entries as entries_of_frame;
#[cfg(feature = "fred")]
pub use fred::Fred;
pub(crate) use link::{CommandOf, Link, ValueOf, Way};
#[cfg(feature = "redis-rs")]
pub use redis_rs::RedisRs;

use address::{Login, Node};

/// A driver.
pub trait Driver: fmt::Debug + Send + Sync + Sized + 'static {
    /// A connection of this driver.
    type Connection: Connection;

    /// Takes what all connections have in common. Does no I/O.
    fn new(login: &Login) -> highwater::Result<Self>;

    /// Makes a connection and authenticates. The caller bounds the time.
    fn connect(&self, node: &Node) -> impl Future<Output = Result<Self::Connection, Fault>> + Send;
}

/// A connection. Clones share its socket, which closes when the last of them is dropped, also with replies outstanding.
///
/// A future of it that is dropped leaves the connection in order: its reply is thrown away when it comes. Nothing is sent
/// twice, and nothing times out by itself.
pub trait Connection: Clone + Send + Sync + 'static {
    /// A command that is being put together.
    type Command: Command;
    /// A reply.
    type Value: Value;
    /// Commands that are sent in one go.
    type Batch: Send + Sync;

    /// Puts commands together.
    fn batch(commands: Vec<Self::Command>) -> Self::Batch;

    /// What was put together.
    fn commands(batch: &Self::Batch) -> impl Iterator<Item = &Self::Command> + Send;

    /// Sends a command and awaits its reply. An error reply is a value.
    fn send(&mut self, command: &Self::Command) -> impl Future<Output = Result<Self::Value, Fault>> + Send;

    /// Sends a read and awaits its reply, which the driver need not have taken apart. Nothing else may be outstanding: what
    /// does not come to its end leaves the connection fit for nothing.
    fn read(
        &mut self,
        command: &Self::Command,
    ) -> impl Future<Output = Result<ReadReply<Self::Value>, Fault>> + Send {
        async { self.send(command).await.map(ReadReply::Value) }
    }

    /// From now on there are only reads by this connection, and batches of them. Nothing may be outstanding.
    fn for_reads(&self) {}

    /// Sends a read by a connection that is for reads, beside others. The driver need not have taken its reply apart.
    fn read_among(
        &mut self,
        command: &Self::Command,
    ) -> impl Future<Output = Result<ReadReply<Self::Value>, Fault>> + Send {
        async { self.send(command).await.map(ReadReply::Value) }
    }

    /// Sends commands in one go and awaits a reply for each. Error replies are values.
    fn send_all(
        &mut self,
        batch: &Self::Batch,
    ) -> impl Future<Output = Result<Vec<Self::Value>, Fault>> + Send;
}

/// What takes arguments.
pub trait Arguments {
    /// Adds an argument.
    fn arg(&mut self, bytes: &[u8]);
}

/// A command that is being put together, in the driver's own form, so that arguments are copied only once.
pub trait Command: Arguments + Sized + Send + Sync {
    /// A command without arguments.
    fn new(name: &'static str) -> Self;

    /// The same with room for so many arguments of so many bytes together: for those that come by the thousand.
    fn sized(name: &'static str, args: usize, bytes: usize) -> Self;

    /// Adds an argument that a driver may share instead of copying it.
    fn shared(&mut self, bytes: &Bytes) {
        self.arg(bytes);
    }
}

/// A reply in the driver's own form.
pub trait Value: Sized + Send + 'static {
    /// Opens the outermost level, without copying what is inside.
    fn open(self) -> Reply<Self>;

    /// The text of an error reply as an error, and anything else as it is.
    fn checked(self) -> Result<Self, String>;
}

/// A reply whose outermost level is open.
#[derive(Debug)]
pub enum Reply<V> {
    /// No value.
    Nil,
    /// A number.
    Int(i64),
    /// Text or bytes, of whatever kind.
    Bytes(Bytes),
    /// A list.
    List(Vec<V>),
    /// A map, which only the third version of the protocol has.
    Map(Vec<(V, V)>),
    /// An error reply: the code and the text behind it.
    Error(String),
    /// Something that no command of ours answers with.
    Other,
}

/// The reply to a read.
#[derive(Debug)]
pub enum ReadReply<V> {
    /// As the driver sees it. Errors always come so.
    Value(V),
    /// As it came: complete, and a list or a map.
    Frame(Bytes),
}

/// Why there is no reply.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The server answered with an error: the code and the text behind it.
    Server(String),
    /// The node of a cluster that was asked does not own the key, nor does the one that it named instead.
    Moved(String),
    /// The sentinels know no master of this name.
    NoMaster,
    /// There was no connection, and none could be made. Nothing was sent.
    NotConnected(Option<Source>),
    /// The connection broke before the reply came.
    Lost(Option<Source>),
    /// No reply within the time.
    TimedOut,
    /// The server refused the credentials.
    Refused(Source),
    /// The backend was closed.
    Closed {
        /// While a reply was outstanding.
        sent: bool,
    },
    /// The reply is not of the form that the protocol has for it.
    Unreadable(&'static str),
}

/// The driver's error, for diagnostics.
pub(crate) type Source = Arc<dyn StdError + Send + Sync>;

/// The driver would panic without somebody who does the cryptography. If somebody else was faster, theirs is as good.
#[cfg(feature = "tls")]
fn install_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        rustls::crypto::ring::default_provider().install_default().ok();
    }
}
