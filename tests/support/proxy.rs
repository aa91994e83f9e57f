//! A TCP proxy that loses what a test wants lost. Also compiled into `xtask`.

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// After the first byte of a lost reply, the server is taken to have done all it was told once it is silent this long.
/// Replies to commands that were sent before may come first on a shared connection.
const SILENCE: Duration = Duration::from_millis(50);

/// Listens on loopback and forwards to a server, until it is told otherwise. All ends with it.
#[derive(Debug)]
pub struct TcpProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    controls: Mutex<Controls>,
    /// Grows with each [`TcpProxy::cut`]; connections of an earlier value end.
    cuts: watch::Sender<u64>,
    /// Grows with each [`TcpProxy::half_open`]; connections of an earlier value have a client and no server.
    halves: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
    /// How many connections a trigger has cut.
    triggered: watch::Sender<u64>,
}

#[derive(Debug)]
struct Controls {
    target: SocketAddr,
    refuse: bool,
    delay: Duration,
    lose_reply_to: Option<Vec<u8>>,
    reply_bytes_left: Option<usize>,
    accepted: u64,
}

impl TcpProxy {
    /// Starts to forward to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            controls: Mutex::new(Controls {
                target,
                refuse: false,
                delay: Duration::ZERO,
                lose_reply_to: None,
                reply_bytes_left: None,
                accepted: 0,
            }),
            cuts: watch::channel(0).0,
            halves: watch::channel(0).0,
            stalled: watch::channel(false).0,
            triggered: watch::channel(0).0,
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, accepting }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same as the URL of a Redis server.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    /// How many connections it accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.controls().accepted
    }

    /// Cuts all connections now. New ones are accepted.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|n| *n += 1);
    }

    /// Closes all connections towards the server now, and tells no client: what they send goes nowhere, and nothing comes.
    /// New ones are accepted, and work.
    pub fn half_open(&self) {
        self.shared.halves.send_modify(|n| *n += 1);
    }

    /// Forwards new connections to another server. Those that are open stay where they are.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.controls().target = target;
    }

    /// Whether new connections are closed at once. Those that are open stay.
    pub fn refuse(&self, refuse: bool) {
        self.shared.controls().refuse = refuse;
    }

    /// Whether to stop forwarding without closing: to both sides the other is silent, as after a lost route.
    pub fn stall(&self, stall: bool) {
        self.shared.stalled.send_replace(stall);
    }

    /// Holds each chunk back this long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.shared.controls().delay = delay;
    }

    /// Once: when a client sends bytes that contain `needle`, they reach the server and are carried out, but instead of the
    /// reply the connection is cut.
    pub fn lose_reply_to(&self, needle: impl Into<Vec<u8>>) {
        self.shared.controls().lose_reply_to = Some(needle.into());
    }

    /// Once: cuts a connection when this many more bytes of replies were forwarded, of all connections together.
    pub fn cut_after_reply_bytes(&self, bytes: usize) {
        self.shared.controls().reply_bytes_left = Some(bytes);
    }

    /// How many connections these have cut, since the start.
    pub fn triggers(&self) -> u64 {
        *self.shared.triggered.borrow()
    }

    /// Waits until [`lose_reply_to`](Self::lose_reply_to) and [`cut_after_reply_bytes`](Self::cut_after_reply_bytes) have
    /// cut this many connections, since the start.
    pub async fn triggered(&self, times: u64) {
        let mut triggered = self.shared.triggered.subscribe();
        triggered.wait_for(|n| *n >= times).await.expect("the sender is in `self`");
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    fn controls(&self) -> MutexGuard<'_, Controls> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trigger(&self) {
        self.triggered.send_modify(|n| *n += 1);
    }

    /// Holds a chunk back for as long as the controls say.
    async fn hold(&self) {
        let delay = self.controls().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let mut stalled = self.stalled.subscribe();
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Whether the client's bytes, with those before them, are what the test waits for. Disarms it then.
    fn found_in(&self, seen: &[u8]) -> bool {
        let needle = &mut self.controls().lose_reply_to;
        let found = needle.as_ref().is_some_and(|n| seen.windows(n.len()).any(|w| w == n));
        if found {
            *needle = None;
        }
        found
    }

    /// How many of so many bytes may still be forwarded to a client, and whether the connection is cut after them.
    fn within_budget(&self, len: usize) -> (usize, bool) {
        let budget = &mut self.controls().reply_bytes_left;
        match budget {
            Some(left) if *left <= len => {
                let allowed = *left;
                *budget = None;
                (allowed, true)
            }
            Some(left) => {
                *left -= len;
                (len, false)
            }
            None => (len, false),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let refuse = {
            let mut controls = shared.controls();
            controls.accepted += u64::from(!controls.refuse);
            controls.refuse
        };
        if !refuse {
            tokio::spawn(forward(client, Arc::clone(&shared)));
        }
    }
}

async fn forward(client: TcpStream, shared: Arc<Shared>) {
    let (mut cuts, mut halves) = (shared.cuts.subscribe(), shared.halves.subscribe());
    let target = shared.controls().target;
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Nothing may be held back by the system: tests measure latency through here.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (mute, muted) = watch::channel(false);
    tokio::select! {
        () = requests(&mut from_client, to_server, &shared, mute) => return,
        () = replies(from_server, &mut to_client, &shared, muted) => return,
        _ = cuts.changed() => return,
        _ = halves.changed() => {}
    }
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut nowhere) => {}
        _ = cuts.changed() => {}
    }
}

async fn requests(
    client: &mut OwnedReadHalf,
    mut server: OwnedWriteHalf,
    shared: &Shared,
    mute: watch::Sender<bool>,
) {
    let mut chunk = vec![0; 64 * 1024];
    // The end of what was seen before: a needle may come in two pieces.
    let mut seen = Vec::new();
    while let Ok(n @ 1..) = client.read(&mut chunk).await {
        shared.hold().await;
        seen.extend_from_slice(&chunk[..n]);
        if shared.found_in(&seen) {
            mute.send_replace(true);
            seen.clear();
        }
        seen.drain(..seen.len().saturating_sub(1024));
        if server.write_all(&chunk[..n]).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut server: OwnedReadHalf,
    client: &mut OwnedWriteHalf,
    shared: &Shared,
    muted: watch::Receiver<bool>,
) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = server.read(&mut chunk).await {
        if *muted.borrow() {
            while let Ok(Ok(1..)) = timeout(SILENCE, server.read(&mut chunk)).await {}
            return shared.trigger();
        }
        shared.hold().await;
        let (allowed, cut) = shared.within_budget(n);
        if client.write_all(&chunk[..allowed]).await.is_err() {
            return;
        }
        if cut {
            return shared.trigger();
        }
    }
}
