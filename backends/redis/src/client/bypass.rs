//! A socket under a driver, from which the reply to a read can be taken before the driver's parser sees it.

use std::{
    io, mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{frame::Scan, pool::lock};

/// What the driver sees in place of a reply that was taken.
const STAND_IN: &[u8] = b"+OK\r\n";
/// The least room for what comes.
const ROOM_MIN: usize = 16 * 1024;
/// The same where replies are small.
const WRAP_ROOM_MIN: usize = 4 * 1024;
/// More than this is given back.
const WRAP_ROOM_MAX: usize = 64 * 1024;

/// Says that the next reply is to be taken, and has it then.
#[derive(Debug, Default)]
pub(super) struct Bypass(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// All goes to the driver.
    #[default]
    Open,
    /// The next reply is ours.
    Taking {
        bytes: BytesMut,
        scan: Scan,
    },
    Taken(Bytes),
    /// Each reply that is a list becomes one text.
    Wrapping {
        bytes: BytesMut,
        scan: Scan,
    },
}

impl Bypass {
    /// Takes the next reply, if it is a list. Nothing may be outstanding. `room` is how long it is expected to be.
    pub(super) fn arm(&self, room: usize) {
        *lock(&self.0) =
            State::Taking { bytes: BytesMut::with_capacity(room.max(ROOM_MIN)), scan: Scan::new() };
    }

    /// What was taken. `None`: the driver has the reply.
    pub(super) fn taken(&self) -> Option<Bytes> {
        match mem::take(&mut *lock(&self.0)) {
            State::Taken(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// From now on, the driver sees each reply that is a list as one text, which is the reply as it came. So replies to many
    /// who ask by one connection find their way as always. A text is copied once more, which is for small replies. Nothing may
    /// be outstanding.
    pub(super) fn wrap(&self) {
        *lock(&self.0) = State::Wrapping { bytes: BytesMut::new(), scan: Scan::new() };
    }

    /// Whether it does.
    pub(super) fn wraps(&self) -> bool {
        matches!(*lock(&self.0), State::Wrapping { .. })
    }
}

/// A socket that a driver reads.
#[derive(Debug)]
pub(super) struct Bypassed<S> {
    socket: S,
    bypass: Arc<Bypass>,
    /// What the driver is to see next.
    next: Bytes,
}

impl<S: AsyncRead + Unpin> Bypassed<S> {
    pub(super) fn new(socket: S) -> (Self, Arc<Bypass>) {
        let bypass = Arc::<Bypass>::default();
        (Self { socket, bypass: Arc::clone(&bypass), next: Bytes::new() }, bypass)
    }

    /// Reads what is ours, if the next reply is. Then the driver has something to see, or the socket has ended.
    fn read_ours(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut state = lock(&self.bypass.0);
        if let State::Wrapping { bytes, scan } = &mut *state {
            self.next = ready!(wrapped(&mut self.socket, bytes, scan, cx))?;
            return Poll::Ready(Ok(true));
        }
        let mut is_ours = false;
        while let State::Taking { bytes, scan } = &mut *state {
            is_ours = true;
            if bytes.capacity() == bytes.len() {
                bytes.reserve(bytes.len().max(ROOM_MIN));
            }
            if ready!(pin!(self.socket.read_buf(bytes)).poll(cx))? == 0 {
                break;
            }
            // Errors, what the server says unasked, and what is not of the protocol are for the driver.
            let is_list = matches!(bytes.first(), Some(b'*' | b'%'));
            match scan.end(bytes) {
                Ok(None) if is_list => {}
                Ok(Some(len)) if is_list => {
                    let reply = bytes.split_to(len).freeze();
                    self.next = [STAND_IN, &bytes[..]].concat().into();
                    *state = State::Taken(reply);
                }
                _ => {
                    self.next = mem::take(bytes).freeze();
                    *state = State::Open;
                }
            }
        }
        Poll::Ready(Ok(is_ours))
    }
}

/// The next replies, lists as texts; nothing where the socket has ended.
fn wrapped(
    socket: &mut (impl AsyncRead + Unpin),
    bytes: &mut BytesMut,
    scan: &mut Scan,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    let mut next = BytesMut::new();
    while next.is_empty() {
        if bytes.is_empty() && bytes.capacity() > WRAP_ROOM_MAX {
            *bytes = BytesMut::new();
        }
        bytes.reserve(WRAP_ROOM_MIN);
        if ready!(pin!(socket.read_buf(bytes)).poll(cx))? == 0 {
            break;
        }
        loop {
            match scan.end(bytes) {
                Ok(None) => break,
                Ok(Some(len)) => {
                    let reply = bytes.split_to(len);
                    *scan = Scan::new();
                    if matches!(reply.first(), Some(b'*' | b'%')) {
                        next.extend_from_slice(format!("${len}\r\n").as_bytes());
                        next.extend_from_slice(&reply);
                        next.extend_from_slice(b"\r\n");
                    } else {
                        next.extend_from_slice(&reply);
                    }
                }
                Err(_) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
    }
    Poll::Ready(Ok(next.freeze()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Bypassed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.next.is_empty() && !ready!(self.read_ours(cx))? {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let len = self.next.len().min(buf.remaining());
        buf.put_slice(&self.next.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bypassed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIST: &[u8] = b"*2\r\n$3\r\nabc\r\n:1\r\n";

    fn pair() -> (DuplexStream, Bypassed<DuplexStream>, Arc<Bypass>) {
        let (server, socket) = duplex(1024);
        let (driver, bypass) = Bypassed::new(socket);
        (server, driver, bypass)
    }

    /// What the driver sees of what the server sends in pieces.
    async fn seen(
        server: &mut DuplexStream,
        driver: &mut Bypassed<DuplexStream>,
        pieces: &[&[u8]],
    ) -> Vec<u8> {
        let mut seen = Vec::new();
        for piece in pieces {
            server.write_all(piece).await.unwrap();
            let mut bytes = [0; 4];
            // A task that never waits is held up now and then.
            tokio::task::yield_now().await;
            while let Poll::Ready(len) = futures_util::poll!(pin!(driver.read(&mut bytes))) {
                seen.extend(&bytes[..len.unwrap()]);
            }
        }
        seen
    }

    #[tokio::test]
    async fn a_list_passes_by_the_driver_and_what_follows_does_not() {
        let more = b"+more\r\n";
        for cut in 1..LIST.len() {
            let (mut server, mut driver, bypass) = pair();
            bypass.arm(0);
            let end = [&LIST[cut..], more].concat();
            assert_eq!(seen(&mut server, &mut driver, &[&LIST[..cut], &end]).await, b"+OK\r\n+more\r\n");
            assert_eq!(bypass.taken().unwrap(), LIST);
            assert_eq!(seen(&mut server, &mut driver, &[LIST]).await, LIST, "it was one reply");
            assert!(bypass.taken().is_none());
        }
    }

    #[tokio::test]
    async fn all_else_goes_to_the_driver() {
        for reply in [&b"-NOGROUP gone\r\n"[..], b"_\r\n", b">1\r\n+said\r\n*1\r\n:1\r\n", b"*x\r\n"] {
            let (mut server, mut driver, bypass) = pair();
            bypass.arm(0);
            assert_eq!(seen(&mut server, &mut driver, &[&reply[..1], &reply[1..]]).await, reply);
            assert!(bypass.taken().is_none());
        }
    }

    #[tokio::test]
    async fn lists_become_texts_where_many_ask_by_one_connection() {
        let replies = [LIST, b"*-1\r\n", b"-NOGROUP gone\r\n", b"%0\r\n", LIST].concat();
        let texts = "$17\r\n*2\r\n$3\r\nabc\r\n:1\r\n\r\n";
        let expected = format!("{texts}$5\r\n*-1\r\n\r\n-NOGROUP gone\r\n$4\r\n%0\r\n\r\n{texts}");
        for cut in 1..replies.len() {
            let (mut server, mut driver, bypass) = pair();
            bypass.wrap();
            let seen = seen(&mut server, &mut driver, &[&replies[..cut], &replies[cut..]]).await;
            assert_eq!(String::from_utf8(seen).unwrap(), expected, "{cut}");
        }
    }

    #[tokio::test]
    async fn g14_a_reply_that_breaks_off_is_the_end_of_the_connection() {
        let (mut server, mut driver, bypass) = pair();
        bypass.arm(0);
        server.write_all(&LIST[..5]).await.unwrap();
        drop(server);
        assert_eq!(driver.read(&mut [0; 64]).await.unwrap(), 0);
        assert!(bypass.taken().is_none());
    }
}
