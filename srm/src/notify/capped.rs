//! A connection that hears no more than so many bytes: who reads whole lines must not be given one without an end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Hears at most so many bytes of what it carries, then fails.
#[derive(Debug)]
pub(super) struct Capped<S> {
    inner: S,
    at: SocketAddr,
    left: usize,
}

impl<S> Capped<S> {
    pub fn new(inner: S, at: SocketAddr, most: usize) -> Self {
        Capped { inner, at, left: most }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the server says too much")));
        }
        let most = self.left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        let read = Pin::new(&mut self.inner).poll_read(cx, &mut part);
        let length = part.filled().len();
        buf.advance(length);
        self.left -= length;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Capped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S> AsyncTokioStream for Capped<S>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug,
{
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_comes_after_so_many_bytes_is_not_heard() {
        let (mut server, ours) = duplex(64);
        let mut capped = Capped::new(ours, ([127, 0, 0, 1], 25).into(), 10);
        server.write_all(b"220 ready, and more").await.unwrap();
        let mut heard = [0; 10];
        capped.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"220 ready,");
        assert!(capped.read_u8().await.unwrap_err().to_string().contains("says too much"));
        capped.write_all(b"QUIT\r\n").await.unwrap();
        let mut said = [0; 6];
        server.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"QUIT\r\n");
    }
}
