//! The API's listener: bounded in connections and in their length of life, so that nobody can occupy it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Most connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// Time to the end of the header of the first request: whoever has none does not keep a place from those who have.
const HEADER: Duration = Duration::from_secs(5);
/// How long one connection may last. Above the time that an answer may take.
const LIFE: Duration = Duration::from_secs(60);
/// Pause after accept(2) failed for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A TCP listener with those bounds.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// [`HEADER`] and [`LIFE`].
    times: [Duration; 2],
}

impl Bounded {
    pub fn new(listener: TcpListener) -> Self {
        Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS)), times: [HEADER, LIFE] }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((tcp, from)) => {
                    let _ = tcp.set_nodelay(true);
                    return (Connection::new(tcp, place, self.times), from);
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its time is over, and gives its place back when it is dropped.
pub(super) struct Connection {
    tcp: TcpStream,
    end: Pin<Box<Sleep>>,
    latest: Instant,
    /// How much of the empty line that ends a header came last; all of it once one did.
    header: usize,
    _place: OwnedSemaphorePermit,
}

const EMPTY_LINE: &[u8] = b"\r\n\r\n";

impl Connection {
    fn new(tcp: TcpStream, place: OwnedSemaphorePermit, [header, life]: [Duration; 2]) -> Connection {
        let now = Instant::now();
        let end = Box::pin(tokio::time::sleep_until(now + header));
        Connection { tcp, end, latest: now + life, header: 0, _place: place }
    }

    /// With the end of the first header there is more time.
    fn heard(&mut self, bytes: &[u8]) {
        if self.header == EMPTY_LINE.len() {
            return;
        }
        for byte in bytes {
            let goes_on = *byte == EMPTY_LINE[self.header];
            self.header = if goes_on { self.header + 1 } else { usize::from(*byte == EMPTY_LINE[0]) };
            if self.header == EMPTY_LINE.len() {
                self.end.as_mut().reset(self.latest);
                return;
            }
        }
    }

    fn over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.over(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.heard(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.over(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// How long a connection lasts on which this is said, with these times for its header and its life.
    async fn lasts(said: &str, times: [Duration; 2]) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut connection, _) = Bounded { times, ..Bounded::new(listener) }.accept().await;
        client.write_all(said.as_bytes()).await.unwrap();
        let (begun, mut heard) = (Instant::now(), Vec::new());
        let error = connection.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!((error.kind(), heard), (io::ErrorKind::TimedOut, said.as_bytes().to_vec()));
        begun.elapsed()
    }

    #[tokio::test]
    async fn whoever_says_no_whole_header_has_little_time() {
        let (short, hour) = (Duration::from_millis(50), Duration::from_secs(3_600));
        for said in ["", "GET / HTTP/1.1\r\nHost: a\r\n", "\r\n\r\r\n"] {
            assert!(lasts(said, [short, hour]).await < hour, "{said:?}");
        }
        let life = 4 * short;
        for said in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\nmore", "\r\r\n\r\n"] {
            assert!(lasts(said, [short, life]).await > life - short, "{said:?}");
        }
    }
}
