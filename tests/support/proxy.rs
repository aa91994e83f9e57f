//! A TCP proxy that loses what a test wants lost.

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
    target: SocketAddr,
    controls: Mutex<Controls>,
    /// Grows with each [`TcpProxy::cut`]; connections of an earlier value end.
    cuts: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
    /// How many connections a trigger has cut.
    triggered: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Controls {
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
            target,
            controls: Mutex::default(),
            cuts: watch::channel(0).0,
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
    let mut cuts = shared.cuts.subscribe();
    let Ok(server) = TcpStream::connect(shared.target).await else { return };
    // Nothing may be held back by the system: tests measure latency through here.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (mute, muted) = watch::channel(false);
    tokio::select! {
        () = requests(from_client, to_server, &shared, mute) => {}
        () = replies(from_server, to_client, &shared, muted) => {}
        _ = cuts.changed() => {}
    }
}

async fn requests(
    mut client: OwnedReadHalf,
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
    mut client: OwnedWriteHalf,
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

#[cfg(test)]
mod tests {
    use std::{io, time::Instant};

    use super::{AsyncReadExt, AsyncWriteExt, Duration, Ipv4Addr, TcpListener, TcpStream, timeout, watch};
    use crate::support::{RedisServer, TcpProxy};

    /// A server that answers each line with `<line>!`, and the lines that it got.
    async fn shouting() -> (TcpProxy, watch::Receiver<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (heard, hears) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let mut chunk = [0; 1024];
                    while let Ok(n @ 1..) = client.read(&mut chunk).await {
                        let line = String::from_utf8_lossy(&chunk[..n]).into_owned();
                        heard.send_modify(|all| all.push_str(&line));
                        client.write_all(format!("{line}!").as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (TcpProxy::start(addr).await, hears)
    }

    async fn say(client: &mut TcpStream, line: &str) -> io::Result<String> {
        client.write_all(line.as_bytes()).await?;
        let mut chunk = [0; 1024];
        match client.read(&mut chunk).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok(String::from_utf8_lossy(&chunk[..n]).into_owned()),
        }
    }

    #[tokio::test]
    async fn it_forwards_cuts_and_refuses() {
        let (proxy, _) = shouting().await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(say(&mut client, "a").await.unwrap(), "a!");
        proxy.cut();
        assert!(say(&mut client, "b").await.is_err());
        let mut open = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(say(&mut open, "c").await.unwrap(), "c!");
        proxy.refuse(true);
        let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(say(&mut refused, "d").await.is_err());
        assert_eq!(say(&mut open, "e").await.unwrap(), "e!");
        assert_eq!(proxy.accepted(), 2);
    }

    #[tokio::test]
    async fn a_stall_is_silence_and_loses_nothing() {
        let (proxy, _) = shouting().await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(say(&mut client, "a").await.unwrap(), "a!");
        proxy.stall(true);
        let answer = timeout(Duration::from_millis(100), say(&mut client, "b")).await;
        assert!(answer.is_err(), "neither an answer nor an end: {answer:?}");
        proxy.stall(false);
        let mut chunk = [0; 16];
        let n = client.read(&mut chunk).await.unwrap();
        assert_eq!(&chunk[..n], b"b!");
        proxy.delay(Duration::from_millis(40));
        let start = Instant::now();
        assert_eq!(say(&mut client, "c").await.unwrap(), "c!");
        assert!(start.elapsed() >= Duration::from_millis(80), "there and back");
    }

    #[tokio::test]
    async fn a_lost_reply_was_carried_out() {
        let (proxy, heard) = shouting().await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.lose_reply_to("needle");
        assert_eq!(say(&mut client, "hay").await.unwrap(), "hay!");
        // In two pieces, as a long command may come.
        assert_eq!(say(&mut client, "nee").await.unwrap(), "nee!");
        assert!(say(&mut client, "dle").await.is_err());
        proxy.triggered(1).await;
        assert_eq!(*heard.borrow(), "hayneedle");
        let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(say(&mut again, "needle").await.unwrap(), "needle!", "it happens once");
    }

    #[tokio::test]
    async fn a_reply_can_be_cut_in_the_middle() {
        let (proxy, _) = shouting().await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.cut_after_reply_bytes(5);
        assert_eq!(say(&mut client, "ab").await.unwrap(), "ab!");
        assert_eq!(say(&mut client, "cd").await.unwrap(), "cd");
        assert!(say(&mut client, "ef").await.is_err());
        proxy.triggered(1).await;
    }

    #[tokio::test]
    async fn a_redis_command_is_carried_out_and_its_reply_lost() {
        let server = RedisServer::start();
        let proxy = TcpProxy::start(server.addr()).await;
        assert!(proxy.url().starts_with("redis://127.0.0.1:"));
        proxy.lose_reply_to("INCR");
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(say(&mut client, "INCR counter\r\n").await.is_err());
        assert_eq!(server.cli(&["GET", "counter"]).unwrap().int(), Some(1));
    }
}
