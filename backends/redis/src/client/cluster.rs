//! Who owns which slot of a cluster.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Command, Driver, Fault,
    address::{Node, Place},
    dialer::{Dialer, unsent},
    link::{CommandOf, ValueOf},
    pool::{By, Pool, Together, lock},
};
use crate::{commands::Build, keys, reply};

/// The nodes of a cluster, and what is known about their slots.
pub(crate) struct Cluster<D: Driver> {
    dialer: Arc<Dialer<D>>,
    pools: Mutex<HashMap<Node, Arc<Pool<D>>>>,
    owners: Together<Arc<Mutex<Owners<D>>>>,
    /// Which node is asked first: another one each time, for one that is cut off from the others answers as well.
    first: AtomicUsize,
}

/// Who owns which slot.
struct Owners<D: Driver> {
    pools: Vec<Arc<Pool<D>>>,
    /// For each slot the place of its owner in `pools`, or [`NOBODY`].
    of: Vec<u16>,
    /// Who said so. It can be reached, which not every owner need be.
    asked: Arc<Pool<D>>,
}

const NOBODY: u16 = u16::MAX;

/// Where a command is to be sent instead.
pub(crate) enum Redirect<D: Driver> {
    /// To the owner, from now on.
    Moved(Arc<Pool<D>>),
    /// To who is about to become the owner, this time.
    Ask(Arc<Pool<D>>),
}

impl<D: Driver> Cluster<D> {
    pub(crate) fn new(dialer: Arc<Dialer<D>>) -> Self {
        Self { dialer, pools: Mutex::default(), owners: Together::default(), first: AtomicUsize::new(0) }
    }

    /// The owner of a key, or without a key any node.
    pub(crate) async fn pool(&self, key: Option<&str>) -> Result<Arc<Pool<D>>, Fault> {
        let (_, owners) = self.owners.get(async || Box::pin(self.ask()).await).await?;
        let owner = lock(&owners).owner(key.map(keys::slot));
        owner.ok_or_else(|| {
            // Somebody may own it by now.
            self.forget();
            Fault::Server("CLUSTERDOWN nobody owns the slot of the key".to_owned())
        })
    }

    /// Reads an error reply that points elsewhere, as an answer of this node.
    pub(crate) fn redirect(&self, text: &str, from: &Pool<D>) -> Option<Redirect<D>> {
        let mut words = text.split_ascii_whitespace();
        let (code, slot, place) = (words.next()?, words.next()?, words.next()?);
        let (host, port) = place.rsplit_once(':')?;
        let host = match (host, &from.node) {
            // A node that knows no name of the other means its own host.
            ("" | "?", Some(Node::Tcp(host, _))) => host,
            (host, _) => host,
        };
        let pool = self.pool_of(Node::Tcp(host.to_owned(), port.parse().ok()?));
        match code {
            "MOVED" => {
                if let Some(owners) = self.owners.peek() {
                    lock(&owners).set(slot.parse().ok()?, pool.clone());
                }
                Some(Redirect::Moved(pool))
            }
            "ASK" => Some(Redirect::Ask(pool)),
            _ => None,
        }
    }

    /// What an error reply that nobody followed means.
    pub(crate) fn fault(&self, text: String) -> Fault {
        if text.starts_with("CLUSTERDOWN") {
            self.forget();
        }
        match text.starts_with("MOVED ") || text.starts_with("ASK ") {
            true => Fault::Moved(text),
            false => Fault::Server(text),
        }
    }

    /// Forgets who owns what: the next call asks.
    pub(crate) fn forget(&self) {
        self.owners.clear();
    }

    /// Closes what is not in use.
    pub(crate) fn clear(&self) {
        self.forget();
        for (_, pool) in lock(&self.pools).drain() {
            pool.clear();
        }
    }

    /// Asks one node after the other who owns what.
    async fn ask(&self) -> Result<Arc<Mutex<Owners<D>>>, Fault> {
        let Place::Cluster(seeds) = &self.dialer.address.place else { return Err(Fault::NotConnected(None)) };
        let mut pools: Vec<_> = lock(&self.pools).values().cloned().collect();
        pools.extend(seeds.iter().map(|seed| self.pool_of(seed.clone())));
        let first = self.first.fetch_add(1, Ordering::Relaxed) % pools.len();
        pools.rotate_left(first);
        // Who hangs is asked last, so that the streams of the others need not wait for it.
        pools.sort_by_key(|pool| !pool.is_connected());
        let command = CommandOf::<D>::new("CLUSTER").with("SLOTS");
        let mut fault = Fault::NotConnected(None);
        for pool in pools {
            let answer = pool.one(By::Shared, &command).await;
            let slots = answer.and_then(|answer| answer.map_err(Fault::Server));
            match slots.and_then(|slots| self.owners(slots, pool)) {
                Ok(owners) => return Ok(Arc::new(Mutex::new(owners))),
                Err(error) => fault = unsent(error),
            }
        }
        Err(fault)
    }

    /// Reads the reply to `CLUSTER SLOTS`: first slot, last slot, the owner, its replicas.
    fn owners(&self, value: ValueOf<D>, asked: Arc<Pool<D>>) -> Result<Owners<D>, Fault> {
        let of = vec![NOBODY; usize::from(keys::SLOTS)];
        let mut owners = Owners { pools: Vec::new(), of, asked };
        for range in reply::list(value)? {
            let mut parts = reply::list(range)?.into_iter();
            let (Some(first), Some(last), Some(owner)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(Fault::Unreadable("slots and their owner"));
            };
            let mut owner = reply::list(owner)?.into_iter();
            let host = reply::optional_string(owner.next())?.filter(|host| !host.is_empty() && host != "?");
            let port = owner.next().map(reply::int).transpose()?.and_then(|port| u16::try_from(port).ok());
            let host = host.or_else(|| match &owners.asked.node {
                Some(Node::Tcp(host, _)) => Some(host.clone()),
                _ => None,
            });
            let (Some(host), Some(port)) = (host, port) else {
                return Err(Fault::Unreadable("the address of a node"));
            };
            let pool = self.pool_of(Node::Tcp(host, port));
            for slot in reply::count(first)?..=reply::count(last)?.min(u64::from(keys::SLOTS) - 1) {
                owners.set(slot as u16, pool.clone());
            }
        }
        if owners.pools.is_empty() {
            return Err(Fault::Server("CLUSTERDOWN nobody owns any slot".to_owned()));
        }
        // Who owns nothing any more is not asked again, unless the URL names it.
        lock(&self.pools).retain(|_, pool| owners.pools.iter().any(|owner| Arc::ptr_eq(owner, pool)));
        Ok(owners)
    }

    fn pool_of(&self, node: Node) -> Arc<Pool<D>> {
        let mut pools = lock(&self.pools);
        let new = || Arc::new(Pool::new(self.dialer.clone(), Some(node.clone())));
        pools.entry(node.clone()).or_insert_with(new).clone()
    }
}

impl<D: Driver> Owners<D> {
    fn owner(&self, slot: Option<u16>) -> Option<Arc<Pool<D>>> {
        match slot {
            Some(slot) => self.pools.get(usize::from(self.of[usize::from(slot)])).cloned(),
            None => Some(self.asked.clone()),
        }
    }

    fn set(&mut self, slot: u16, owner: Arc<Pool<D>>) {
        let known = self.pools.iter().position(|pool| Arc::ptr_eq(pool, &owner));
        let at = known.unwrap_or(self.pools.len());
        if known.is_none() {
            self.pools.push(owner);
        }
        if let (Some(of), Ok(at)) = (self.of.get_mut(usize::from(slot)), u16::try_from(at)) {
            *of = at;
        }
    }
}
