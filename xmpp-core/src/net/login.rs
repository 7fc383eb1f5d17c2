//! A connection up to authentication: does what [`crate::negotiate`] says.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{Spent, thread_time};
use super::{Class, Counted, Entry, Host, ServerConfig};
use crate::error::{StreamCondition, StreamError};
use crate::negotiate::{Carrier, Checked, ENTROPY_BYTES, Input, Negotiation, Output, Proved, Turn};
use crate::sasl::{Bindings, PlainCheck, TLS_EXPORTER_LABEL};
use crate::xml::{Event, Framer};

/// Read buffer in the clear, in bytes: a header and `<starttls/>`.
const CLEAR_BYTES: usize = 512;
/// Most bytes read from a client before it has logged in, white space and all (S3, S5). A login with three failed
/// attempts takes less than a tenth.
const BEFORE_AUTH_BYTES: usize = 64 * 1024;
/// What ends a stream.
pub(super) const END_STREAM: &[u8] = b"</stream:stream>";

/// An authenticated stream.
pub(super) struct Session {
    /// Boxed: what holds it is moved from one future to the next, and each keeps room for what it was given.
    pub stream: Box<TlsStream<TcpStream>>,
    /// May hold elements that came with the stream header.
    pub framer: Framer,
    pub proved: Proved,
    /// As what it was admitted.
    pub class: Class,
}

struct Login<'a> {
    address: IpAddr,
    config: &'a ServerConfig,
    host: &'a dyn Host,
    spent: &'a Spent,
    framer: Framer,
    negotiation: Negotiation,
    reply: Vec<u8>,
    /// Bytes read so far.
    read: usize,
}

enum Flow {
    /// Wants more input.
    More,
    StartTls,
    /// Wants a password checked.
    Check(PlainCheck),
    User(Proved),
    Closed,
}

/// Negotiates TLS and SASL. `None`: refused, closed or lost; the client has been told what could be told.
pub(super) async fn login(
    mut tcp: TcpStream,
    entry: Entry,
    address: IpAddr,
    config: &ServerConfig,
    host: &dyn Host,
    spent: &Spent,
) -> Option<Session> {
    let mut login = Login {
        address,
        config,
        host,
        spent,
        framer: Framer::new(config.negotiation.before_auth),
        negotiation: Negotiation::new(Carrier::Clear),
        reply: Vec::new(),
        read: 0,
    };
    if entry == Entry::StartTls {
        // The reader is dropped with all that came behind <starttls/> (S9).
        let mut clear = BufReader::with_capacity(CLEAR_BYTES, &mut tcp);
        let Ok(Flow::StartTls) = login.talk(&mut clear).await else { return None };
        login.framer.discard_buffered();
        login.framer.restart();
    }
    let Some(class) = config.admission.enter(&tcp).await else {
        host.count(Counted::Crowded);
        return None;
    };
    let acceptor = TlsAcceptor::from(config.tls.config.clone());
    let Ok(mut stream) = Box::pin(accept(acceptor, tcp)).await else {
        host.count(Counted::NoTls);
        return None;
    };
    if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        host.count(Counted::TlsResumed);
    }
    let bindings = bindings(stream.get_ref().1, config.tls.end_point.as_ref());
    match entry {
        Entry::StartTls => _ = login.input(Input::TlsReady { bindings }),
        Entry::DirectTls => login.negotiation = Negotiation::new(Carrier::Tls { bindings }),
    }
    match login.talk(&mut stream).await {
        Ok(Flow::User(proved)) => Some(Session { stream, framer: login.framer, proved, class }),
        Ok(_) => {
            let _ = stream.shutdown().await;
            None
        }
        Err(_) => None,
    }
}

async fn accept(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    acceptor.accept(tcp).await.map(Box::new)
}

/// What this connection gives for channel binding: on TLS 1.3 only.
fn bindings(tls: &rustls::ServerConnection, end_point: Option<&Bytes>) -> Option<Bindings> {
    let tls13 = tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let exporter =
        tls13.then(|| tls.export_keying_material([0; 32], TLS_EXPORTER_LABEL, Some(b"")).ok())??;
    Some(Bindings { exporter, end_point: end_point.cloned() })
}

impl Login<'_> {
    /// Reads and answers until something other than more input is called for.
    async fn talk<S: AsyncBufRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<Flow> {
        loop {
            let data = stream.fill_buf().await?;
            let len = data.len();
            if len == 0 {
                return Ok(Flow::Closed);
            }
            self.read += len;
            let too_much = self.read > BEFORE_AUTH_BYTES;
            if !too_much {
                self.framer.feed(data);
            }
            stream.consume(len);
            let mut flow = self.guarded(|login| if too_much { login.too_much() } else { login.advance() });
            while let Flow::Check(check) = flow {
                let checked = self.check(check).await;
                flow = self.guarded(|login| match login.input(Input::Checked(checked)) {
                    Flow::More => login.advance(),
                    other => other,
                });
            }
            if !self.reply.is_empty() {
                stream.write_all(&std::mem::take(&mut self.reply)).await?;
                stream.flush().await?;
            }
            if !matches!(flow, Flow::More) {
                return Ok(flow);
            }
        }
    }

    /// A panic costs this stream only.
    fn guarded(&mut self, run: impl FnOnce(&mut Self) -> Flow) -> Flow {
        catch_unwind(AssertUnwindSafe(|| run(self))).unwrap_or_else(|_| {
            self.host.count(Counted::Panicked);
            self.fault(StreamError::new(StreamCondition::InternalServerError))
        })
    }

    fn too_much(&mut self) -> Flow {
        let error = StreamError::new(StreamCondition::PolicyViolation).with_text("too much before the login");
        self.input(Input::Fault(error))
    }

    /// The last words of this stream.
    fn fault(&mut self, error: StreamError) -> Flow {
        self.reply.extend_from_slice(&error.to_bytes());
        self.reply.extend_from_slice(END_STREAM);
        Flow::Closed
    }

    /// Checks a password on a thread for slow work, when there is room.
    async fn check(&self, check: PlainCheck) -> Checked {
        let room = timeout(self.config.check_wait, Arc::clone(&self.config.checks).acquire_owned());
        let Ok(Ok(permit)) = room.await else { return Checked::Unavailable };
        let slow = tokio::task::spawn_blocking(move || {
            let from = thread_time();
            let holds = check.holds();
            drop(permit);
            (holds, thread_time().saturating_sub(from))
        });
        let Ok((holds, time)) = slow.await else { return Checked::Unavailable };
        self.spent.add(time);
        if holds { Checked::Holds } else { Checked::Wrong }
    }

    /// Takes events off the framer as far as they go.
    fn advance(&mut self) -> Flow {
        loop {
            let flow = match self.framer.next() {
                Ok(None) => return Flow::More,
                Ok(Some(Event::StreamOpen(header))) => self.input(Input::Header(header)),
                Ok(Some(Event::Stanza(stanza))) => self.input(Input::Element(stanza)),
                Ok(Some(Event::StreamClose)) => self.input(Input::End),
                Err(error) => self.input(Input::Fault(error)),
            };
            if !matches!(flow, Flow::More) {
                return flow;
            }
        }
    }

    fn input(&mut self, input: Input) -> Flow {
        let mut outputs = VecDeque::from(self.turn(input));
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Send(bytes) => self.reply.extend_from_slice(&bytes),
                Output::StartTls => return Flow::StartTls,
                Output::Restart => {
                    self.framer.restart();
                    self.framer.set_limits(self.config.negotiation.after_auth);
                }
                Output::Check(check) => return Flow::Check(check),
                Output::Guessed => {
                    self.host.count(Counted::WrongPassword);
                    self.config.guesses.take(self.address, Instant::now());
                }
                Output::Lookup { user, token, hash } => {
                    let found = self.host.lookup(&user, token, hash);
                    outputs.extend(self.turn(Input::Credentials(found)));
                }
                Output::Authenticated(proved) => return Flow::User(proved),
                Output::End => {
                    self.reply.extend_from_slice(END_STREAM);
                    return Flow::Closed;
                }
                Output::Close(error) => return self.fault(error),
            }
        }
        Flow::More
    }

    fn turn(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let mut entropy = [0; ENTROPY_BYTES];
        self.host.random(&mut entropy);
        let features = || self.host.features();
        let mut turn = Turn {
            config: &self.config.negotiation,
            entropy,
            throttled: self.config.guesses.is_empty(self.address, Instant::now()),
            stale: !self.host.is_current(),
            features: &features,
            out: &mut out,
        };
        self.negotiation.handle(input, &mut turn);
        out
    }
}
