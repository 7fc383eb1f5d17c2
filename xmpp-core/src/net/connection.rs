//! A connection after authentication: elements to the host, bytes from the host, both at once in one task.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Sleep, sleep, timeout};

use super::login::END_STREAM;
use super::mailbox::{ConnSender, Mailbox, Queue, mailbox};
use super::rates::Meter;
use super::{ConnId, Counted, Host, Proved, ServerConfig, ToConn};
use crate::error::{StreamCondition, StreamError};
use crate::xml::{Event, Framer};

/// How much is gathered for one write, in bytes: a TLS record holds 16 KiB.
const BATCH_BYTES: usize = 16 * 1024;

/// How many bytes of elements may be with the host and not yet credited; one element more goes through. Credits alone
/// would let a client that sends the longest stanzas hold 32 times as much as it ever needs.
const IN_FLIGHT_BYTES: usize = 512 * 1024;

/// Places for lengths of elements in flight that an idle connection keeps.
const IN_FLIGHT_KEPT: usize = 4;

/// Bytes of room that a thread's spare buffer keeps.
const SPARE_BYTES: usize = 2 * BATCH_BYTES;

thread_local! {
    /// The buffer for the next write of a connection on this thread, so that a write allocates nothing.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Why the loop ended.
enum Ended {
    /// The host has said `ToConn::Close`.
    ByHost,
    /// `</stream:stream>` was read.
    ByClient,
    /// The host has dropped the last sender.
    Abandoned,
    /// A stream error of the client, or a panic of ours.
    Fault(StreamError),
    /// The socket failed, or reads too slowly: close without a word.
    Lost,
}

/// Serves an authenticated stream until it ends.
pub(super) async fn run<S: AsyncBufRead + AsyncWrite + Unpin>(
    stream: S,
    framer: Framer,
    proved: Proved,
    peer: SocketAddr,
    config: &ServerConfig,
    host: &dyn Host,
) {
    let (tx, mailbox) = mailbox(config.queued_bytes);
    let mut pipe = Pipe::new(stream, mailbox, config);
    let Some(mut registered) = Registered::open(host, proved, peer, tx) else {
        pipe.fault(StreamError::new(StreamCondition::InternalServerError));
        return Box::pin(pipe.finish(config)).await;
    };
    let ended = elements(&mut pipe, framer, &registered).await;
    registered.close(matches!(ended, Ended::ByClient));
    match ended {
        Ended::Lost => return,
        Ended::ByHost => {}
        Ended::Abandoned => pipe.end_stream(),
        Ended::Fault(error) => pipe.fault(error),
        Ended::ByClient => {
            // The host may still have something to say, such as the last acknowledgement.
            pipe.reading = false;
            tokio::select! {
                () = sleep(config.close_timeout) => {}
                ended = pipe.wait() => if matches!(ended, Woken::Lost) { return },
            }
            pipe.end_stream();
        }
    }
    Box::pin(pipe.finish(config)).await;
}

/// Ends a stream that nobody is to serve.
pub(super) async fn refuse<S: AsyncBufRead + AsyncWrite + Unpin>(
    stream: S,
    error: StreamError,
    config: &ServerConfig,
) {
    let (_tx, mailbox) = mailbox(config.queued_bytes);
    let mut pipe = Pipe::new(stream, mailbox, config);
    pipe.fault(error);
    pipe.finish(config).await;
}

/// The host's registration of this connection; tells it exactly once that the connection is gone.
struct Registered<'a> {
    host: &'a dyn Host,
    conn: ConnId,
    open: bool,
}

impl<'a> Registered<'a> {
    fn open(host: &'a dyn Host, proved: Proved, peer: SocketAddr, tx: ConnSender) -> Option<Self> {
        let conn = catch_unwind(AssertUnwindSafe(|| host.opened(proved, peer, tx))).ok()?;
        Some(Registered { host, conn, open: true })
    }

    fn close(&mut self, clean: bool) {
        if std::mem::take(&mut self.open) {
            self.host.closed(self.conn, clean);
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.close(false);
    }
}

/// Hands elements to the host while there are credits, and writes what it sends.
async fn elements<S: AsyncBufRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    mut framer: Framer,
    registered: &Registered<'_>,
) -> Ended {
    // What came together with the stream header is in the framer already.
    let mut more = true;
    loop {
        while more && pipe.may_take() && !pipe.pauses() {
            // A panic costs this stream only.
            match catch_unwind(AssertUnwindSafe(|| one(&mut framer, registered))) {
                Ok(Ok(Step::Element(bytes))) => pipe.took(bytes),
                Ok(Ok(Step::More)) => more = false,
                Ok(Ok(Step::Close)) => return Ended::ByClient,
                Ok(Err(error)) => return Ended::Fault(error),
                Err(_) => {
                    registered.host.count(Counted::Panicked);
                    return Ended::Fault(StreamError::new(StreamCondition::InternalServerError));
                }
            }
        }
        pipe.reading = !more;
        match pipe.wait().await {
            Woken::Readable => {
                let Ok(data) = pipe.stream.fill_buf().await else { return Ended::Lost };
                let len = data.len();
                if len == 0 {
                    return Ended::Lost;
                }
                framer.feed(data);
                pipe.stream.consume(len);
                pipe.meter.read(len);
                more = true;
            }
            Woken::GoOn => {}
            Woken::Closing | Woken::Closed => return Ended::ByHost,
            Woken::Abandoned => return Ended::Abandoned,
            Woken::Lost => return Ended::Lost,
        }
    }
}

enum Step {
    /// One of so many bytes was handed on.
    Element(usize),
    More,
    Close,
}

fn one(framer: &mut Framer, registered: &Registered<'_>) -> Result<Step, StreamError> {
    match framer.next()? {
        None => Ok(Step::More),
        Some(Event::Stanza(stanza)) => {
            let bytes = stanza.bytes.len();
            registered.host.element(registered.conn, stanza);
            Ok(Step::Element(bytes))
        }
        Some(Event::StreamClose) => Ok(Step::Close),
        // The framer gives a header only after a restart, and nobody restarts it here.
        Some(Event::StreamOpen(_)) => Err(StreamError::new(StreamCondition::InternalServerError)),
    }
}

/// What the pipe has come to.
enum Woken {
    Readable,
    /// The host had enough, or it went too fast; that is over.
    GoOn,
    /// `ToConn::Close` has come; what stands before it may not be written yet.
    Closing,
    /// All is written, up to and with the last words.
    Closed,
    Abandoned,
    Lost,
}

/// The stream in both directions. Writing never waits for reading nor the other way round.
struct Pipe<S> {
    stream: S,
    mailbox: Mailbox,
    credits: u32,
    /// Lengths of the elements that are with the host, and their sum.
    in_flight: VecDeque<usize>,
    in_flight_bytes: usize,
    /// Whether input is wanted (and there are credits for it).
    reading: bool,
    /// What the client's rates leave it.
    meter: Meter,
    /// Nothing is read until then: the client is too fast.
    pause: Option<Pin<Box<Sleep>>>,
    queue: Queue,
    /// What is being written: a buffer of this thread, given back when all is out, so that an idle connection holds none.
    batch: Vec<u8>,
    sent: usize,
    /// How many bytes of the batch count as queued.
    counted: usize,
    flushed: bool,
    /// `ToConn::Close` is in the batch or written: nothing comes after it.
    closing: bool,
    /// Our own last words, to be followed by the end of the stream.
    last: Option<Bytes>,
    /// Only writing what is left.
    finishing: bool,
}

impl<S: AsyncBufRead + AsyncWrite + Unpin> Pipe<S> {
    fn new(stream: S, mailbox: Mailbox, config: &ServerConfig) -> Self {
        Pipe {
            stream,
            mailbox,
            credits: config.credits,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            reading: true,
            meter: Meter::new(&config.rates, Instant::now()),
            pause: None,
            queue: Queue::Empty,
            batch: Vec::new(),
            sent: 0,
            counted: 0,
            flushed: true,
            closing: false,
            last: None,
            finishing: false,
        }
    }

    /// Whether the host takes another element.
    fn may_take(&self) -> bool {
        self.credits > 0 && self.in_flight_bytes < IN_FLIGHT_BYTES
    }

    /// An element of so many bytes is with the host.
    fn took(&mut self, bytes: usize) {
        self.credits -= 1;
        self.in_flight.push_back(bytes);
        self.in_flight_bytes += bytes;
        self.meter.element();
    }

    /// The host is done with so many elements: with the oldest ones, for it takes them in order.
    fn credited(&mut self, elements: u32) {
        self.credits = self.credits.saturating_add(elements);
        for _ in 0..elements {
            let Some(bytes) = self.in_flight.pop_front() else { break };
            self.in_flight_bytes -= bytes;
        }
        if self.in_flight.is_empty() && self.in_flight.capacity() > IN_FLIGHT_KEPT {
            self.in_flight = VecDeque::new();
        }
    }

    /// Whether the client is too fast; then `wait` ends when it may go on.
    fn pauses(&mut self) -> bool {
        self.pause = self.meter.pause(Instant::now).map(|pause| Box::pin(sleep(pause)));
        self.pause.is_some()
    }

    async fn wait(&mut self) -> Woken {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        let before = self.may_take();
        let taken = self.mailbox.take(cx, &mut self.queue);
        self.credited(taken.credits);
        if !self.may_take() {
            let more = self.mailbox.starve();
            self.credited(more);
        }
        if taken.overflow {
            return Poll::Ready(Woken::Lost);
        }
        if taken.close && !self.finishing {
            return Poll::Ready(Woken::Closing);
        }
        match self.poll_write(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Woken::Lost),
            Poll::Ready(Ok(())) if self.closing => return Poll::Ready(Woken::Closed),
            Poll::Ready(Ok(())) if taken.abandoned => return Poll::Ready(Woken::Abandoned),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if !before && self.may_take() {
            return Poll::Ready(Woken::GoOn);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
            return Poll::Ready(Woken::GoOn);
        }
        if self.reading && self.may_take() {
            let read = Pin::new(&mut self.stream).poll_fill_buf(cx).map_ok(|_| ());
            return match ready!(read) {
                Ok(()) => Poll::Ready(Woken::Readable),
                Err(_) => Poll::Ready(Woken::Lost),
            };
        }
        Poll::Pending
    }

    /// Writes until the queue is empty and flushed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.sent < self.batch.len() {
                let rest = &self.batch[self.sent..];
                match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => self.sent += n,
                }
                self.flushed = false;
            }
            self.mailbox.written(std::mem::take(&mut self.counted));
            self.sent = 0;
            self.batch.clear();
            self.gather();
            if self.batch.is_empty() {
                break;
            }
        }
        let buffer = std::mem::take(&mut self.batch);
        if buffer.capacity() <= SPARE_BYTES {
            SPARE.set(buffer);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Fills the batch from the queue.
    fn gather(&mut self) {
        if self.batch.capacity() == 0 && (self.last.is_some() || !matches!(self.queue, Queue::Empty)) {
            self.batch = SPARE.take();
        }
        while self.batch.len() < BATCH_BYTES && !self.closing {
            match self.queue.pop() {
                Some(ToConn::Write(bytes)) => self.push(&bytes),
                Some(ToConn::Close { last, end_stream }) => {
                    self.push(&last);
                    if end_stream {
                        self.batch.extend_from_slice(END_STREAM);
                    }
                    self.closing = true;
                }
                None => match self.last.take() {
                    Some(last) => {
                        self.batch.extend_from_slice(&last);
                        self.batch.extend_from_slice(END_STREAM);
                        self.closing = true;
                    }
                    None => break,
                },
            }
        }
        if self.closing {
            self.queue = Queue::Empty;
        }
    }

    fn push(&mut self, bytes: &Bytes) {
        self.batch.extend_from_slice(bytes);
        self.counted += bytes.len();
    }

    /// Ends the stream behind what is queued, with an error.
    fn fault(&mut self, error: StreamError) {
        self.last = Some(error.to_bytes());
    }

    /// Ends the stream behind what is queued.
    fn end_stream(&mut self) {
        self.last = Some(Bytes::new());
    }

    /// Writes what is left, closes TLS and TCP, and waits a moment for the other side to do the same: a socket that
    /// is closed with unread input resets the connection and may destroy our last words.
    async fn finish(mut self, config: &ServerConfig) {
        self.reading = false;
        self.finishing = true;
        let closing = async {
            while !matches!(self.wait().await, Woken::Closed | Woken::Abandoned | Woken::Lost) {}
            self.stream.shutdown().await?;
            loop {
                let len = self.stream.fill_buf().await?.len();
                if len == 0 {
                    return Ok::<(), io::Error>(());
                }
                self.stream.consume(len);
            }
        };
        let _ = timeout(config.close_timeout, closing).await;
    }
}
