//! Makes connections: to a node, or to the one that the sentinels call the master.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::BoxFuture;
use highwater::Result;
use tokio::{sync::watch, time::timeout};

use super::{
    Command, Connection, Driver, Fault, Value,
    address::{Address, Node, Place},
};
use crate::{commands::Build, reply, settings::Settings};

/// Makes connections, until it is closed.
pub(crate) struct Dialer<D: Driver> {
    servers: D,
    sentinels: D,
    pub(crate) address: Address,
    pub(crate) settings: Settings,
    /// The sentinel that answered last is asked first.
    first: AtomicUsize,
    closed: watch::Sender<bool>,
}

impl<D: Driver> Dialer<D> {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let address = Address::parse(&settings.url)?;
        Ok(Self {
            servers: D::new(&address.login)?,
            sentinels: D::new(&address.sentinel_login)?,
            address,
            settings,
            first: AtomicUsize::new(0),
            closed: watch::Sender::new(false),
        })
    }

    /// Makes a connection to a node, or else to where the address points now.
    pub(crate) async fn connect(&self, node: Option<&Node>) -> Result<D::Connection, Fault> {
        // Boxed, since what a driver does here is a type so deep that a program that spawns a consumer would not compile.
        let work: BoxFuture<'_, _> = Box::pin(async move {
            match (node, &self.address.place) {
                (Some(node), _) | (None, Place::Server(node)) => self.to_node(node).await,
                (None, Place::Sentinel { sentinels, master }) => self.to_master(sentinels, master).await,
                (None, Place::Cluster(_)) => Err(Fault::NotConnected(None)),
            }
        });
        self.unless_closed(work, false).await
    }

    /// Ends all that waits, now and later.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(crate) async fn unless_closed<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
        sent: bool,
    ) -> Result<T, Fault> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Fault::Closed { sent }),
            result = work => result,
        }
    }

    async fn to_node(&self, node: &Node) -> Result<D::Connection, Fault> {
        let connection = self.in_time(self.servers.connect(node)).await?;
        tracing::debug!(%node, "connected");
        Ok(connection)
    }

    /// Asks anew each time: after a failover the old address may still answer, as a replica.
    async fn to_master(&self, sentinels: &[Node], master: &str) -> Result<D::Connection, Fault> {
        let mut fault = Fault::NotConnected(None);
        let first = self.first.load(Ordering::Relaxed);
        for at in (first..first + sentinels.len()).map(|at| at % sentinels.len()) {
            match self.by_sentinel(&sentinels[at], master).await {
                Ok(connection) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => fault = unsent(error),
            }
        }
        Err(fault)
    }

    async fn by_sentinel(&self, sentinel: &Node, master: &str) -> Result<D::Connection, Fault> {
        let node = self.in_time(self.master(sentinel, master)).await?.ok_or(Fault::NoMaster)?;
        let mut connection = self.to_node(&node).await?;
        let role = self.in_time(async { connection.send(&Command::new("ROLE")).await }).await?;
        // Who may not ask takes the sentinel at its word.
        if let Ok(role) = role.checked() {
            let role = reply::list(role)?.into_iter().next().map(reply::bytes).transpose()?;
            if role.as_deref() != Some(b"master") {
                return Err(Fault::Server("READONLY the sentinels still name a replica".to_owned()));
            }
        }
        Ok(connection)
    }

    async fn master(&self, sentinel: &Node, master: &str) -> Result<Option<Node>, Fault> {
        let mut connection = self.sentinels.connect(sentinel).await?;
        let ask = <<D::Connection as Connection>::Command as Command>::new("SENTINEL");
        let answer = connection.send(&ask.with("GET-MASTER-ADDR-BY-NAME").with(master)).await?;
        let Some(parts) = reply::optional_list(answer)? else { return Ok(None) };
        let [host, port] = <[_; 2]>::try_from(parts).map_err(|_| Fault::Unreadable("a host and a port"))?;
        let port = u16::try_from(reply::int(port)?).map_err(|_| Fault::Unreadable("a port"))?;
        Ok(Some(Node::Tcp(reply::string(host)?, port)))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        within(self.settings.connect_timeout, work, Fault::NotConnected(None)).await
    }
}

/// What a fault on the way means to a command that was not yet sent.
pub(crate) fn unsent(fault: Fault) -> Fault {
    match fault {
        Fault::Lost(source) => Fault::NotConnected(source),
        Fault::TimedOut | Fault::Unreadable(_) => Fault::NotConnected(None),
        Fault::Closed { .. } => Fault::Closed { sent: false },
        fault => fault,
    }
}

pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
    late: Fault,
) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or(Err(late))
}
