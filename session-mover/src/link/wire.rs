//! Messages as bytes on a stream, and errors of sockets as [`Ended`].

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::{Ended, Item};
use crate::msg::{self, Msg};

/// Longest message before the peer's greeting, in bytes. A greeting is small: it names the runs of one log.
pub const GREETING_BYTES: usize = 1 << 20;
/// Bytes that one read takes from TLS.
const READ_BYTES: usize = 64 << 10;
/// Bytes that a message is given before they have arrived: a length alone costs no more than this.
const TRUSTED_BYTES: usize = 256 << 10;
/// Bytes after which a batch is written although more waits.
const BATCH_BYTES: usize = 256 << 10;
/// Messages that are taken from the queue at once.
const BATCH: usize = 1_024;

/// What the acceptor says once it has checked the dialler: a message without a body.
pub(super) const COME_IN: [u8; 4] = [0; 4];

/// Reads messages until the connection ends, whatever the other side sends, and tells each of them.
pub async fn read_all(stream: impl AsyncRead + Unpin, mut tell: impl FnMut(Msg)) -> Ended {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    let mut limit = GREETING_BYTES;
    loop {
        match read(&mut stream, limit).await {
            Ok(msg) => {
                if matches!(msg, Msg::Hello(_)) {
                    limit = msg::MAX_BYTES;
                }
                tell(msg);
            }
            Err(ended) => return ended,
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Msg, Ended> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(ended_by)?;
    let length = u32::from_le_bytes(length) as usize;
    if !(1..=limit).contains(&length) {
        return Err(Ended::Bad(format!("a message of {length} bytes; at most {limit} are allowed here")));
    }
    // A buffer of its own for each message, exactly as long: a slice of a shared buffer would keep all of it alive
    // for as long as the log's tail keeps the frame.
    let mut body = Vec::new();
    while body.len() < length {
        if body.len() == body.capacity() {
            body.reserve_exact((length - body.len()).min(body.len().max(TRUSTED_BYTES)));
        }
        let room = (length - body.len()).min(body.capacity() - body.len());
        let read = (&mut *stream).take(room as u64).read_buf(&mut body).await.map_err(ended_by)?;
        if read == 0 {
            return Err(Ended::Fin);
        }
    }
    Msg::decode(Bytes::from(body))
        .map_err(|error| Ended::Bad(format!("a message that cannot be read: {error}")))
}

/// Which kinds of message a write carries, for the kill points.
#[derive(Default)]
struct Carries {
    frame: bool,
    ack: bool,
}

/// Writes what is queued until this node closes the connection (`Ok`) or the connection fails.
pub(super) async fn write_all(
    mut stream: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Item>,
    first: &[u8],
) -> Result<(), Ended> {
    let mut items = Vec::new();
    let mut out = first.to_vec();
    write(&mut stream, &mut out, &mut Carries::default()).await?;
    loop {
        let mut carries = Carries::default();
        // None: every sender was dropped.
        let mut close = queue.recv_many(&mut items, BATCH).await == 0;
        for item in items.drain(..) {
            let Item::Msg(msg) = item else {
                close = true;
                break;
            };
            carries.frame |= matches!(msg, Msg::Frame(_));
            carries.ack |= matches!(msg, Msg::Ack(..));
            out.extend_from_slice(&msg.encode());
            if out.len() >= BATCH_BYTES {
                write(&mut stream, &mut out, &mut carries).await?;
            }
        }
        write(&mut stream, &mut out, &mut carries).await?;
        if close {
            return stream.shutdown().await.map_err(ended_by);
        }
    }
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    out: &mut Vec<u8>,
    carries: &mut Carries,
) -> Result<(), Ended> {
    let Carries { frame, ack } = std::mem::take(carries);
    if frame {
        crate::kill_point!("link.frame.before_send");
    }
    if ack {
        crate::kill_point!("link.ack.before_send");
    }
    if !out.is_empty() {
        stream.write_all(out).await.map_err(ended_by)?;
        stream.flush().await.map_err(ended_by)?;
        out.clear();
        out.shrink_to(BATCH_BYTES * 2);
    }
    if frame {
        crate::kill_point!("link.frame.after_send");
    }
    if ack {
        crate::kill_point!("link.ack.after_send");
    }
    Ok(())
}

/// What an error of a socket, or of TLS above it, says about the end of a connection.
pub(super) fn ended_by(error: io::Error) -> Ended {
    use io::ErrorKind::*;
    match error.kind() {
        UnexpectedEof => Ended::Fin,
        // Writing to a connection that was reset before.
        ConnectionReset | BrokenPipe => Ended::Reset,
        // With a user time-out the kernel hands on what a router said last.
        TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown => Ended::TimedOut,
        ConnectionRefused => Ended::Refused,
        InvalidData => Ended::Tls(error.to_string()),
        _ => Ended::Bad(error.to_string()),
    }
}
